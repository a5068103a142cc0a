"""Conversion of tensors between JSON, as REST callers use it, and the raw form, as the servicer uses it."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from frontend.open_inference.tensors import BYTES
from serving.domain.errors import InvalidRequest
from serving.wire.raw_tensors import pack_bytes, unpack_bytes

_NUMBERS: Final = (int, float)


class _Datatype(NamedTuple):
    """Datatype of numbers or Booleans."""

    code: str
    """Format character of the module ``struct``."""
    kinds: tuple[type, ...]
    """Python types of the elements when read from JSON."""


_DATATYPES: Final = {
    "BOOL": _Datatype("?", (bool,)),
    "UINT8": _Datatype("B", (int,)),
    "UINT16": _Datatype("H", (int,)),
    "UINT32": _Datatype("I", (int,)),
    "UINT64": _Datatype("Q", (int,)),
    "INT8": _Datatype("b", (int,)),
    "INT16": _Datatype("h", (int,)),
    "INT32": _Datatype("i", (int,)),
    "INT64": _Datatype("q", (int,)),
    "FP16": _Datatype("e", _NUMBERS),
    "FP32": _Datatype("f", _NUMBERS),
    "FP64": _Datatype("d", _NUMBERS),
}


def raw_of(data: Sequence[Any], datatype: str, shape: Sequence[int]) -> bytes:
    """Return the raw form of a tensor in JSON, which is nested like its shape or one list of all elements.

    Raises:
        InvalidRequest: the elements are of another type, or their number or nesting does not match the shape.
    """
    elements = _flat(data, shape)
    if datatype == BYTES:
        _check_kinds(elements, datatype, (str,))
        return pack_bytes(element.encode() for element in elements)
    known = _known(datatype)
    _check_kinds(elements, datatype, known.kinds)
    try:
        return struct.pack(f"<{len(elements)}{known.code}", *elements)
    except (struct.error, OverflowError) as error:
        raise InvalidRequest(f"a tensor of datatype {datatype} has an element that is out of range") from error


def elements_of(raw: bytes, datatype: str) -> list[Any]:
    """Return the elements of a tensor in raw form as JSON has them.

    Raises:
        InvalidRequest: JSON cannot hold the elements; callers have to request them as binary data.
    """
    if datatype != BYTES:
        known = _known(datatype)
        return [element for (element,) in struct.iter_unpack(f"<{known.code}", raw)]
    try:
        return [element.decode() for element in unpack_bytes(raw)]
    except UnicodeDecodeError:
        # The cause would put the text into the log.
        raise InvalidRequest("an output is not text; request it with the parameter binary_data") from None


def _flat(data: Sequence[Any], shape: Sequence[int]) -> Sequence[Any]:
    """Return the elements, row by row."""
    elements = data
    if data and isinstance(data[0], list):
        for depth, size in enumerate(shape):
            # The outermost level is the list itself.
            rows = [data] if depth == 0 else elements
            if any(not isinstance(row, list) or len(row) != size for row in rows):
                raise InvalidRequest("the data of a tensor is not nested as its shape requires")
            elements = [element for row in rows for element in row]
    if len(elements) != math.prod(shape):
        raise InvalidRequest(
            f"the data of a tensor have {len(elements)} elements, but its shape requires another number"
        )
    return elements


def _check_kinds(elements: Sequence[Any], datatype: str, kinds: tuple[type, ...]) -> None:
    # Compare exact types: to Python, true is also an integer.
    if not all(type(element) in kinds for element in elements):
        raise InvalidRequest(f"a tensor of datatype {datatype} has an element of another type in its data")


def _known(datatype: str) -> _Datatype:
    known = _DATATYPES.get(datatype)
    if known is None:
        raise InvalidRequest("the datatype of a tensor cannot be represented in JSON; send the tensor as binary data")
    return known
