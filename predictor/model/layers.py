"""Arrays of an intent network: named and shaped as in the book's model files, and checked for matching shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from predictor.model.files.tensors import Array
from predictor.model.layer_names import EMBEDDING, family_names
from serving.domain.errors import InvalidModelFile


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A linear layer: ``outputs = weight @ inputs + bias``."""

    weight: Array
    """float32, shape [outputs, inputs]."""
    bias: Array
    """float32, shape [outputs]."""


@dataclass(frozen=True, slots=True)
class LayerShapes:
    """Shapes of a network whose layers match each other."""

    names: Mapping[str, str]
    """Name in the file of each tensor, by its name in the book's files."""
    tokens: int
    """Number of rows of the embedding."""
    widths: tuple[int, ...]
    """Dimensions of the embedding, then the outputs of each linear layer."""

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> Self:
        """Return the shapes of a state_dict: ``embedding.weight``, ``fc1.weight``, ``fc1.bias``, ``fc2.weight`` ...

        Other names are read as :func:`~predictor.model.layer_names.family_names` describes.

        Args:
            shapes: the shape of each tensor, by its name in the file.

        Raises:
            InvalidModelFile: the names are not those of this family, or the shapes do not match each other.
        """
        try:
            names = family_names(shapes)
        except ValueError as error:
            raise InvalidModelFile(f"model.pth {error}") from None
        numbers = range(1, len(names) // 2 + 1)
        embedding, *weights = (shapes[names[name]] for name in (EMBEDDING, *(f"fc{n}.weight" for n in numbers)))
        biases = [shapes[names[f"fc{number}.bias"]] for number in numbers]
        if any(len(shape) != 2 or 0 in shape for shape in (embedding, *weights)):
            raise InvalidModelFile("model.pth: every weight must be a non-empty matrix")
        tokens, *widths = embedding
        for weight, bias in zip(weights, biases, strict=True):
            outputs, inputs = weight
            if inputs != widths[-1] or tuple(bias) != (outputs,):
                raise InvalidModelFile("model.pth: the shapes of its layers do not match")
            widths.append(outputs)
        return cls(names, tokens, tuple(widths))


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """An embedding and at least one linear layer; the input of each layer is the output of the previous one."""

    embedding: Array
    """float32, shape [tokens, dimensions]."""
    linears: tuple[Linear, ...]

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Layers:
        """Return the layers of a state_dict.

        Raises:
            InvalidModelFile: as in :meth:`LayerShapes.of`.
        """
        shapes = LayerShapes.of({name: array.shape for name, array in arrays.items()})
        numbers = range(1, len(shapes.widths))
        found = {name: arrays[file] for name, file in shapes.names.items()}
        return cls(
            found[EMBEDDING],
            tuple(Linear(found[f"fc{number}.weight"], found[f"fc{number}.bias"]) for number in numbers),
        )
