"""Arrays of an intent network: named and shaped as in the book's model files, and checked for matching shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from predictor.model.files.tensors import Array
from serving.domain.errors import InvalidModelFile

_EMBEDDING: Final = "embedding.weight"
_LINEAR_WEIGHT: Final = re.compile(r"fc[1-9][0-9]*\.weight")


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A linear layer: ``outputs = weight @ inputs + bias``."""

    weight: Array
    """float32, shape [outputs, inputs]."""
    bias: Array
    """float32, shape [outputs]."""


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """An embedding and at least one linear layer; the input of each layer is the output of the previous one."""

    embedding: Array
    """float32, shape [tokens, dimensions]."""
    linears: tuple[Linear, ...]

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Layers:
        """Return the layers of a state_dict: ``embedding.weight``, ``fc1.weight``, ``fc1.bias``, ``fc2.weight`` ...

        Raises:
            InvalidModelFile: the names are not those of this family, or the shapes do not match each other.
        """
        count = sum(1 for name in arrays if _LINEAR_WEIGHT.fullmatch(name))
        numbers = range(1, count + 1)
        expected = {_EMBEDDING} | {f"fc{number}.{part}" for number in numbers for part in ("weight", "bias")}
        if not count or arrays.keys() != expected:
            raise InvalidModelFile(
                "model.pth must hold embedding.weight, then fc1.weight, fc1.bias, fc2.weight and so on"
            )
        layers = cls(
            arrays[_EMBEDDING],
            tuple(Linear(arrays[f"fc{number}.weight"], arrays[f"fc{number}.bias"]) for number in numbers),
        )
        layers._check()
        return layers

    def _check(self) -> None:
        matrices = [self.embedding, *(linear.weight for linear in self.linears)]
        if any(matrix.ndim != 2 or 0 in matrix.shape for matrix in matrices):
            raise InvalidModelFile("model.pth: every weight must be a non-empty matrix")
        width = self.embedding.shape[1]
        for linear in self.linears:
            outputs, inputs = linear.weight.shape
            if inputs != width or linear.bias.shape != (outputs,):
                raise InvalidModelFile("model.pth: the shapes of its layers do not match")
            width = outputs
