"""Tokens of pages of a list by name: the last name that a page covers, encoded."""

from __future__ import annotations

import base64
import binascii

from serving.domain.errors import InvalidModelId, InvalidRequest
from serving.domain.model_id import parse_model_name


def token_of(name: str) -> str:
    """Return the token of a page whose last name is ``name``."""
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def name_in(token: str) -> str:
    """Return the name in the token of a page; an empty token has an empty name.

    Raises:
        InvalidRequest: the token is invalid.
    """
    if not token:
        return ""
    try:
        padding = "=" * (-len(token) % 4)
        return parse_model_name(base64.b64decode(token + padding, altchars=b"-_", validate=True).decode())
    except (binascii.Error, ValueError, InvalidModelId) as error:
        raise InvalidRequest("page_token is not from this service; use next_page_token of the previous page") from error
