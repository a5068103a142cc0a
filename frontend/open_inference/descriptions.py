"""What the server and its models are, in the words of the protocol and of Triton."""

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
"""Triton's names of what is there beyond the protocol."""
PLATFORM: Final = "intent-serving"

BATCH: Final = -1
"""A dimension of any size: the number of documents."""


class TensorDescription(NamedTuple):
    """A tensor that models take or give."""

    name: str
    datatype: str
    dimensions: tuple[int, ...] = (1,)
    """Without the number of documents."""

    @property
    def shape(self) -> tuple[int, ...]:
        """With the number of documents."""
        return (BATCH, *self.dimensions)


# Clients of Triton take a tensor to have a dimension beside the batch's; [n] is taken as well.
MODEL_INPUT: Final = TensorDescription(DOCUMENT, BYTES)
MODEL_OUTPUTS: Final = (TensorDescription(LABEL, BYTES), TensorDescription(SCORE, FP32))
