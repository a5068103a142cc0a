"""Domain types of inferences: the input and output tensors. No protobuf, no JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

DOCUMENT: Final = "document"
"""Input: one BYTES element for each document, in UTF-8."""
LABEL: Final = "label"
"""Output with the label of each document: BYTES."""
SCORE: Final = "score"
"""Output with the softmax probability of each label: FP32."""
OUTPUTS: Final = (LABEL, SCORE)
"""Outputs of a request that names none."""
BEST_LABEL: Final = "best_label"
"""Output with the label of the highest score, regardless of the threshold: BYTES."""
BEST_SCORE: Final = "best_score"
"""Output with the highest score: FP32."""
EXPLANATION: Final = "explanation"
"""Output with the contribution of each token to the logit of the best label, as JSON: BYTES."""
PATH: Final = "path"
"""Output with the steps that led to the answer of a pipeline, as JSON: BYTES. An empty list for other models."""
OPTIONAL_OUTPUTS: Final = (BEST_LABEL, BEST_SCORE, EXPLANATION, PATH)
"""Outputs that are given only on request."""

BYTES: Final = "BYTES"
FP32: Final = "FP32"


class InputTensor(NamedTuple):
    """A tensor as the caller sent it, not yet checked against the model."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    elements: Sequence[bytes]
    """Elements of a BYTES tensor, row by row; empty for a tensor of another type."""


class RequestedOutput(NamedTuple):
    """An output that the caller requested."""

    name: str
    classes: int = 0
    """Number of best classes to return instead of the tensor; 0: the tensor."""


class InferenceRequest(NamedTuple):
    """Inference requested from one model."""

    model: str
    """Name of the model as the caller wrote it, not yet checked."""
    version: str
    """Version; empty: the only one, or the one that the release of the name selects."""
    inputs: Sequence[InputTensor]
    outputs: Sequence[RequestedOutput]
    """Requested outputs; empty: all of :data:`OUTPUTS`."""
    timeout_seconds: float | None = None
    """Time after which the answer is of no use, in seconds; ``None``: only the call's deadline applies."""
    threshold: float | None = None
    """Minimum score of an answer; ``None``: the one in the model's manifest."""
    key: str = ""
    """Routing key: requests with the same key are routed to the same side of a canary."""


class BytesTensor(NamedTuple):
    """An output of type BYTES."""

    name: str
    shape: tuple[int, ...]
    elements: Sequence[bytes]


class FloatTensor(NamedTuple):
    """An output of type FP32."""

    name: str
    shape: tuple[int, ...]
    elements: Sequence[float]


OutputTensor = BytesTensor | FloatTensor


class InferenceAnswer(NamedTuple):
    """Answer of a model."""

    model: str
    version: str
    """Version that answered."""
    outputs: Sequence[OutputTensor]
    """Outputs in the requested order."""
