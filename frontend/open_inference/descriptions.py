"""Descriptions of the server and its models, in the terms of the protocol and of Triton."""

from __future__ import annotations

from typing import Final, NamedTuple

from frontend.open_inference.tensors import BYTES, DOCUMENT, FP32, LABEL, SCORE

SERVER: Final = "intent-serving"
EXTENSIONS: Final = (
    "classification",
    "model_repository",
    "model_configuration",
    "statistics",
    "binary_tensor_data",
)
"""Triton's names of the supported extensions of the protocol."""
PLATFORM: Final = "intent-serving"

BATCH: Final = -1
"""A dimension of any size: the number of documents."""


class TensorDescription(NamedTuple):
    """Input or output tensor of models."""

    name: str
    datatype: str
    dimensions: tuple[int, ...] = (1,)
    """Dimensions, without the number of documents."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions, with the number of documents."""
        return (BATCH, *self.dimensions)


# Triton clients expect a dimension in addition to that of the batch; the shape [n] is accepted as well.
MODEL_INPUT: Final = TensorDescription(DOCUMENT, BYTES)
MODEL_OUTPUTS: Final = (TensorDescription(LABEL, BYTES), TensorDescription(SCORE, FP32))
