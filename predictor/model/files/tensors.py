"""Arrays of a network's state_dict, read from a checked file; every tensor is checked before it is created."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from predictor.model.files.container import STORAGES, Storage, TorchFile, open_torch_file
from predictor.model.files.pickle_reader import ORDERED_DICT, Global, Instance
from serving.domain.errors import ForbiddenPickle, InvalidModelFile

Array = npt.NDArray[np.float32]

_TENSOR: Final = Global("torch._utils", "_rebuild_tensor_v2")
_PARAMETER: Final = Global("torch._utils", "_rebuild_parameter")
_FLOATS: Final[Mapping[str, np.dtype[Any]]] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),
}

TENSOR_GLOBALS: Final = frozenset({_TENSOR, _PARAMETER, ORDERED_DICT, *STORAGES})
"""Globals that the pickle of a state_dict names."""


LEAST_SHARE: Final = 0.875
"""Least share of its file that a tensor must have to be used in place, which keeps the file's bytes in memory."""


def held_bytes(array: Array) -> int:
    """Return an upper bound on the bytes of memory that ``array`` keeps."""
    return array.nbytes if array.flags.owndata else int(array.nbytes / LEAST_SHARE)


def read_state_dict(data: bytes) -> dict[str, Array]:
    """Return the tensors of a file that ``torch.save(network.state_dict())`` wrote, by name, as finite float32.

    Every tensor is dense, real and on the CPU, with a stride that fits its storage.

    Raises:
        ForbiddenPickle: the file holds more than tensors, as a whole pickled module does.
        InvalidModelFile: the file is damaged, is not a state_dict, or holds a tensor of another kind, a value that is
            not finite (before or after conversion to float32), or tensors of more elements than its bytes justify.
    """
    file = open_torch_file(data)
    try:
        entries = file.read(TENSOR_GLOBALS)
    except ForbiddenPickle as error:
        raise ForbiddenPickle(
            "model.pth requests code, as a model that was saved whole does; none of it was run; save the "
            "model with torch.save(model.state_dict())"
        ) from error.__cause__
    if not isinstance(entries, dict) or not entries:
        raise InvalidModelFile("model.pth is not a state_dict; save it with torch.save(model.state_dict())")
    result: dict[str, Array] = {}
    # A tensor with a stride of 0 can have any number of elements in a few bytes.
    elements_left = len(data)
    for name, value in entries.items():
        if not isinstance(name, str):
            raise InvalidModelFile("model.pth has an entry without a name; save it with torch.save(model.state_dict())")
        array, elements = _array(file, value, elements_left, len(data))
        elements_left -= elements
        result[name] = array
    return result


def _array(file: TorchFile, value: object, elements_left: int, file_size: int) -> tuple[Array, int]:
    if isinstance(value, Instance) and value.constructor == _PARAMETER and value.arguments:
        value = value.arguments[0]
    match value:
        case Instance(
            constructor=constructor,
            arguments=(Storage() as storage, int() as offset, tuple() as shape, tuple() as stride, *_),
        ) if constructor == _TENSOR and storage.kind.name in _FLOATS:
            pass
        case _:
            raise InvalidModelFile("model.pth holds something other than dense tensors of floating-point numbers")
    if len(shape) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *stride)):
        raise InvalidModelFile("model.pth holds a tensor without a valid shape")
    elements = math.prod(shape)
    if elements > elements_left:
        raise InvalidModelFile("model.pth holds tensors of more elements than it has bytes")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if elements and last >= storage.count:
        raise InvalidModelFile("model.pth holds a tensor that is larger than its data")
    data = file.storage(storage)
    kind = _FLOATS[storage.kind.name]
    steps = [step * kind.itemsize for step in stride]
    try:
        view: npt.NDArray[Any] = (
            np.ndarray(shape, kind, data, offset * kind.itemsize, steps) if elements else np.empty(shape, kind)
        )
    except (ValueError, OverflowError) as error:
        # More than 64 dimensions, or a stride beyond 64 bits that no element needs.
        raise InvalidModelFile("model.pth holds a tensor without a valid shape") from error
    return _finite(_as_float32(view, storage.kind.name, file_size * LEAST_SHARE)), elements


def _as_float32(view: npt.NDArray[Any], kind: str, most_of_file: float) -> Array:
    if kind == "BFloat16Storage":
        # bfloat16 is the upper half of a float32.
        return np.asarray(np.left_shift(view, 16, dtype=np.uint32), order="C").view(np.float32)
    if kind == "FloatStorage" and view.flags.c_contiguous and view.flags.aligned and view.nbytes >= most_of_file:
        # A tensor that is nearly the whole file may keep the file in memory; a copy would cost more than it saves.
        return view
    with np.errstate(over="ignore", invalid="ignore"):
        # Copy, so that a small tensor does not keep the whole file in memory.
        return np.array(view, dtype=np.float32, order="C")


def _finite(array: Array) -> Array:
    if not np.isfinite(array).all():
        raise InvalidModelFile("model.pth holds weights that are not finite numbers; train the model again")
    return array
