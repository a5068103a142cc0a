"""Arrays of a network's state_dict, read from a checked file; every tensor is checked before it is created."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from predictor.model.files.allowance import Allowance
from predictor.model.files.container import STORAGES, Storage, TorchFile, naming, open_torch_file
from predictor.model.files.pickle_reader import ORDERED_DICT, Global, Instance
from serving.domain.errors import ForbiddenPickle, InvalidModelFile

Array = npt.NDArray[np.float32]

_TENSOR: Final = Global("torch._utils", "_rebuild_tensor_v2")
_PARAMETER: Final = Global("torch._utils", "_rebuild_parameter")
_FLOAT32: Final = np.dtype(np.float32)
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


STATE_DICT_MEMORY: Final = 16 << 20
"""Upper bound on the bytes of memory that the description of a state_dict takes, without its tensors."""

_MOST_DIMENSIONS: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class _Tensor:
    """A tensor as it is in the file."""

    view: npt.NDArray[Any]
    """Elements of the tensor, in the file's memory."""
    kind: str
    """Name of the class of the tensor's storage."""
    in_place: bool
    """Whether the tensor is used without a copy."""


class StateDict:
    """An opened file of tensors, which are checked, and not yet built.

    Args:
        data: content of the file.
        check: called again and again while the file is read; raises an error to end the reading.

    Raises:
        ForbiddenPickle: the file holds more than tensors, as a whole pickled module does.
        InvalidModelFile: the file is damaged, is not a state_dict, or holds a tensor of another kind, or tensors of
            more elements than its bytes justify.
    """

    def __init__(self, data: bytes, check: Callable[[], None] = lambda: None) -> None:
        with naming("model.pth"):
            file = open_torch_file(data)
            entries = _entries(file, Allowance(STATE_DICT_MEMORY, check=check))
        self._tensors: dict[str, _Tensor] = {}
        # A tensor with a stride of 0 can have any number of elements in a few bytes.
        elements_left = len(data)
        for name, value in entries.items():
            if not isinstance(name, str):
                raise InvalidModelFile(
                    "model.pth has an entry without a name; save it with torch.save(model.state_dict())"
                )
            with naming("model.pth"):
                tensor = _tensor(file, value, elements_left, len(data) * LEAST_SHARE)
            elements_left -= tensor.view.size
            self._tensors[name] = tensor

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors, by name."""
        return {name: tensor.view.shape for name, tensor in self._tensors.items()}

    @property
    def memory(self) -> int:
        """Upper bound on the bytes that :meth:`arrays` allocates, not counting the bytes of the file."""
        copies = sum(_FLOAT32.itemsize * tensor.view.size for tensor in self._tensors.values() if not tensor.in_place)
        # One truth value for each element of one tensor.
        return copies + max((tensor.view.size for tensor in self._tensors.values()), default=0)

    def arrays(self) -> dict[str, Array]:
        """Return the tensors by name, as finite float32.

        Raises:
            InvalidModelFile: a value is not finite, before or after conversion to float32.
        """
        return {name: _finite(_as_float32(tensor)) for name, tensor in self._tensors.items()}


def read_state_dict(data: bytes) -> dict[str, Array]:
    """Return the tensors of a file that ``torch.save(network.state_dict())`` wrote, by name, as finite float32.

    Every tensor is dense, real and on the CPU, with a stride that fits its storage.

    Raises:
        ForbiddenPickle, InvalidModelFile: as :class:`StateDict` does, or a value is not finite.
    """
    return StateDict(data).arrays()


def _entries(file: TorchFile, allowance: Allowance) -> dict[Any, Any]:
    try:
        entries = file.read(TENSOR_GLOBALS, allowance)
    except ForbiddenPickle as error:
        raise ForbiddenPickle(
            "model.pth requests code, as a model that was saved whole does; none of it was run; save the "
            "model with torch.save(model.state_dict())"
        ) from error.__cause__
    if not isinstance(entries, dict) or not entries:
        raise InvalidModelFile("model.pth is not a state_dict; save it with torch.save(model.state_dict())")
    inner = [
        name for name, value in entries.items() if isinstance(value, dict) and any(map(_is_tensor, value.values()))
    ]
    if inner:
        raise InvalidModelFile(
            "model.pth seems to be a checkpoint, with the weights inside of one of its entries;"
            " save it with torch.save(model.state_dict())"
        )
    return entries


def _is_tensor(value: object) -> bool:
    return isinstance(value, Instance) and value.constructor in (_TENSOR, _PARAMETER)


def _tensor(file: TorchFile, value: object, elements_left: int, most_of_file: float) -> _Tensor:
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
    # Checked before anything is computed: the product of a million large numbers takes minutes.
    if len(shape) != len(stride) or len(shape) > _MOST_DIMENSIONS or not all(map(_is_size, (offset, *shape, *stride))):
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
        # More dimensions than NumPy has, or a stride beyond 64 bits that no element needs.
        raise InvalidModelFile("model.pth holds a tensor without a valid shape") from error
    # A tensor that is nearly the whole file may keep the file in memory; a copy would cost more than it saves.
    in_place = (
        storage.kind.name == "FloatStorage"
        and view.flags.c_contiguous
        and view.flags.aligned
        and view.nbytes >= most_of_file
    )
    return _Tensor(view, storage.kind.name, in_place)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 64


def _as_float32(tensor: _Tensor) -> Array:
    if tensor.kind == "BFloat16Storage":
        # bfloat16 is the upper half of a float32.
        return np.asarray(np.left_shift(tensor.view, 16, dtype=np.uint32), order="C").view(np.float32)
    if tensor.in_place:
        return tensor.view
    with np.errstate(over="ignore", invalid="ignore"):
        # Copy, so that a small tensor does not keep the whole file in memory.
        return np.array(tensor.view, dtype=np.float32, order="C")


def _finite(array: Array) -> Array:
    if not np.isfinite(array).all():
        raise InvalidModelFile("model.pth holds weights that are not finite numbers; train the model again")
    return array
