"""Text as other programs save it."""

from __future__ import annotations

from typing import Final

MARK: Final = b"\xef\xbb\xbf"
"""Byte order mark in UTF-8, which some editors and shells write at the beginning of a text (RFC 3629, section 6)."""


def without_mark(data: bytes) -> bytes:
    """Return ``data`` without a byte order mark at its beginning."""
    return data.removeprefix(MARK)
