"""What callers send to tell who they are."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from serving.channels import AUTHORIZATION_KEY
from serving.transport.asgi.context import CallContext

API_KEY_KEY: Final = "x-api-key"
"""Metadata key, or HTTP header, with an API key alone."""

_AUTHORIZATION_HEADER: Final = AUTHORIZATION_KEY.encode()
_API_KEY_HEADER: Final = API_KEY_KEY.encode()
_SCHEME: Final = "bearer "


class Credential(NamedTuple):
    """What came with a call."""

    value: str
    """Empty: it was sent, and is none."""
    may_be_token: bool


def credential_of(context: Any) -> Credential | None:
    """Return what came with the call; ``None`` where nothing did. Of several, the first ``authorization`` counts."""
    if isinstance(context, CallContext):
        authorization = context.metadatum(_AUTHORIZATION_HEADER)
        key = context.metadatum(_API_KEY_HEADER) if authorization is None else None
    else:
        authorization = key = None
        for name, value in context.invocation_metadata() or ():
            if name == AUTHORIZATION_KEY:
                authorization = value
                break
            if name == API_KEY_KEY and key is None:
                key = value
    if authorization is not None:
        return Credential(_after_scheme(authorization), may_be_token=True)
    return None if key is None else Credential(key.strip(), may_be_token=False)


def _after_scheme(value: str) -> str:
    # By RFC 9110, section 11.1, the case of the scheme does not matter.
    return value[len(_SCHEME) :].strip() if value[: len(_SCHEME)].lower() == _SCHEME else ""
