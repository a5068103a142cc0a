"""Credentials that callers send with their calls."""

from __future__ import annotations

from typing import Final, NamedTuple

from serving.call.presented import Presented

API_KEY_KEY: Final = "x-api-key"
"""Metadata key, or HTTP header, that carries only an API key."""

SCHEME: Final = "bearer "
"""Prefix of a credential in ``authorization``; compared without regard to case."""


class Credential(NamedTuple):
    """A credential that was sent with a call."""

    value: str
    """The key or token; empty: one was sent, but it is not well formed."""
    may_be_token: bool


def credential_of(authorization: str | None, presented: Presented) -> Credential | None:
    """Return the credential that was sent with the call; ``None`` if there was none.

    Args:
        authorization: first value of the ``authorization`` header, which is the one that counts; ``None`` if missing.
        presented: everything that the caller sent.
    """
    key = presented.metadatum(API_KEY_KEY) if authorization is None else None
    if authorization is not None:
        return Credential(_after_scheme(authorization), may_be_token=True)
    return None if key is None else Credential(key.strip(), may_be_token=False)


def _after_scheme(value: str) -> str:
    # The scheme is case-insensitive: RFC 9110, section 11.1.
    return value[len(SCHEME) :].strip() if value[: len(SCHEME)].lower() == SCHEME else ""
