"""Inferences in the product's own terms: the tensors that come in and go out. No protobuf, no JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

DOCUMENT: Final = "document"
"""The input: one BYTES element a document, in UTF-8."""
LABEL: Final = "label"
"""The output with the label of each document: BYTES."""
SCORE: Final = "score"
"""The output with the softmax probability of each label: FP32."""
OUTPUTS: Final = (LABEL, SCORE)
"""Given where none is asked for by its name."""
BEST_LABEL: Final = "best_label"
"""The output with the label of the highest score, whatever the threshold: BYTES."""
BEST_SCORE: Final = "best_score"
"""The output with that score: FP32."""
EXPLANATION: Final = "explanation"
"""The output with what each token adds to the logit of that label, as JSON: BYTES."""
OPTIONAL_OUTPUTS: Final = (BEST_LABEL, BEST_SCORE, EXPLANATION)
"""Given where they are asked for."""

BYTES: Final = "BYTES"
FP32: Final = "FP32"


class InputTensor(NamedTuple):
    """A tensor as the caller sent it, not yet checked against the model."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    elements: Sequence[bytes]
    """Of a BYTES tensor, row by row; none of a tensor of another type."""


class RequestedOutput(NamedTuple):
    """An output that the caller asked for."""

    name: str
    classes: int = 0
    """So many of the best classes instead of the tensor; 0: the tensor."""


class InferenceRequest(NamedTuple):
    """What is asked of one model."""

    model: str
    """As the caller wrote it, not yet checked."""
    version: str
    """Empty: the one that is there, or what the release of the name says."""
    inputs: Sequence[InputTensor]
    outputs: Sequence[RequestedOutput]
    """None: all of :data:`OUTPUTS`."""
    timeout_seconds: float | None = None
    """The answer is of no use after this time; ``None``: the call's deadline alone says."""
    threshold: float | None = None
    """The least score of an answer; ``None``: the model's manifest says."""
    key: str = ""
    """Requests of one key get the same side of a canary."""


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
    """What a model answers."""

    model: str
    version: str
    """The one that answered."""
    outputs: Sequence[OutputTensor]
    """As they were asked for, in order."""
