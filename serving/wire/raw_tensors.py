"""Tensors in the raw form of the Open Inference Protocol v2: consecutive elements, little-endian, row by row.

An element of BYTES is its length in 4 bytes, followed by its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from serving.domain.errors import InvalidRequest

_LENGTH: Final = struct.Struct("<I")
_CODES: Final = {"FP32": "f", "FP64": "d"}


def pack_bytes(elements: Iterable[bytes]) -> bytes:
    """Return the elements of a BYTES tensor in raw form."""
    return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))


def unpack_bytes(raw: bytes) -> list[bytes]:
    """Return the elements of a BYTES tensor.

    Raises:
        InvalidRequest: a length points beyond the end of the data, or the data end within a length.
    """
    elements: list[bytes] = []
    position = 0
    while position < len(raw):
        start = position + _LENGTH.size
        if start > len(raw):
            raise _cut_off()
        position = start + _LENGTH.unpack_from(raw, start - _LENGTH.size)[0]
        if position > len(raw):
            raise _cut_off()
        elements.append(raw[start:position])
    return elements


def pack_floats(values: Sequence[float]) -> bytes:
    """Return the elements of an FP32 tensor in raw form."""
    return struct.pack(f"<{len(values)}f", *values)


def unpack_floats(raw: bytes, datatype: str) -> list[float]:
    """Return the elements of a tensor of ``datatype``, FP32 or FP64.

    Raises:
        InvalidRequest: the tensor is of another type, or its number of elements is not whole.
    """
    code = _CODES.get(datatype)
    if code is None or len(raw) % struct.calcsize(code):
        raise InvalidRequest(f"the raw contents are not a valid {datatype} tensor; only FP32 and FP64 are supported")
    return list(struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw))


def _cut_off() -> InvalidRequest:
    return InvalidRequest(
        "each element of the raw contents of a BYTES tensor must be its length, 4 bytes little-endian, and its bytes"
    )
