"""API keys: long random strings of which only hashes are stored.

The hash needs neither a salt nor a slow function, because a key cannot be guessed. A key is looked up by the hash of
the value that was sent, so the duration of the lookup reveals nothing about any key.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

_PREFIX: Final = "intent_"
"""Prefix by which people, and scanners for leaked secrets, recognize a key."""
_RANDOM_BYTES: Final = 32


def new_key() -> str:
    """Return a new key that cannot be guessed."""
    return _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def hash_of(key: str) -> str:
    """Return the hash under which a key is stored, in hexadecimal digits."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
