"""Tags of the fields of protobuf messages (https://protobuf.dev/programming-guides/encoding/#structure)."""

from __future__ import annotations

from typing import Final

FIXED64: Final = 1
LENGTH_DELIMITED: Final = 2
FIXED32: Final = 5


def tag_of(message: type, field: str, wire_type: int) -> int:
    """Return the tag that precedes the field named ``field``, for fields whose tag is a single byte."""
    number: int = message.DESCRIPTOR.fields_by_name[field].number  # type: ignore[attr-defined]
    return number << 3 | wire_type
