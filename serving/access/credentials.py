"""What callers send to tell who they are."""

from __future__ import annotations

from typing import Final, NamedTuple

from serving.call.presented import Presented

API_KEY_KEY: Final = "x-api-key"
"""Metadata key, or HTTP header, with an API key alone."""

SCHEME: Final = "bearer "
"""What stands before a credential in ``authorization``, in any case of letters."""


class Credential(NamedTuple):
    """What came with a call."""

    value: str
    """Empty: it was sent, and is none."""
    may_be_token: bool


def credential_of(authorization: str | None, presented: Presented) -> Credential | None:
    """Return what came with the call; ``None`` where nothing did.

    Args:
        authorization: the first value of that header, which counts; ``None`` where there is none.
        presented: all that came.
    """
    key = presented.metadatum(API_KEY_KEY) if authorization is None else None
    if authorization is not None:
        return Credential(_after_scheme(authorization), may_be_token=True)
    return None if key is None else Credential(key.strip(), may_be_token=False)


def _after_scheme(value: str) -> str:
    # By RFC 9110, section 11.1, the case of the scheme does not matter.
    return value[len(SCHEME) :].strip() if value[: len(SCHEME)].lower() == SCHEME else ""
