"""Numbers in protobuf's encoding."""

from __future__ import annotations

import functools
from typing import Final

_REMEMBERED: Final = 1 << 12


# Messages have few different lengths.
@functools.lru_cache(maxsize=_REMEMBERED)
def varint(number: int) -> bytes:
    """Return a number, at least 0, as a protobuf varint: seven bits per byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
