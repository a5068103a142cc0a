"""API keys: long random texts of which only hashes are kept.

A hash needs no salt and no slow function where what is hashed cannot be guessed. Keys are found by the hash of what was
sent, so the time that it takes tells nothing of any key.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

_PREFIX: Final = "intent_"
"""By which people, and scanners for secrets that were published by mistake, know one."""
_RANDOM_BYTES: Final = 32


def new_key() -> str:
    """Return a key that nobody can guess."""
    return _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def hash_of(key: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
