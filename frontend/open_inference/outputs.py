"""From a model's answers to the output tensors of an inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from frontend.open_inference.tensors import (
    LABEL,
    OUTPUTS,
    SCORE,
    BytesTensor,
    FloatTensor,
    OutputTensor,
    RequestedOutput,
)
from serving.errors import InvalidRequest, ModelUnusable
from serving.manifest import Manifest
from serving.prediction import Prediction, ScoredLabel


class WantedOutputs:
    """The outputs that a caller asked for.

    Args:
        requested: none stands for all.
        manifest: of the model.

    Raises:
        InvalidRequest: there is no such output, or it is asked for twice.
        ModelUnusable: classes are asked for, and the model's manifest has none.
    """

    def __init__(self, requested: Sequence[RequestedOutput], manifest: Manifest) -> None:
        _check(requested)
        most = len(manifest.classes)
        if not most and any(output.classes for output in requested):
            raise ModelUnusable("the model's manifest has no classes; ask for its outputs without classification")
        # As Triton does: who asks for more classes than there are gets all of them.
        self._requested = [RequestedOutput(output.name, min(output.classes, most)) for output in requested]
        self._manifest = manifest

    @property
    def classes(self) -> int:
        """How many of the best classes the model has to tell of each document."""
        return max((output.classes for output in self._requested), default=0)

    def tensors_of(self, predictions: Sequence[Prediction], shape: tuple[int, ...]) -> list[OutputTensor]:
        """Return the outputs, in the order they were asked for.

        Args:
            predictions: of each document, in order.
            shape: of the input.

        Raises:
            ModelUnusable: the engine does not tell the classes that the manifest promises.
        """
        if not self._requested:
            return [_labels(predictions, shape), _scores(predictions, shape)]
        return [self._tensor(output, predictions, shape) for output in self._requested]

    def _tensor(
        self, output: RequestedOutput, predictions: Sequence[Prediction], shape: tuple[int, ...]
    ) -> OutputTensor:
        if not output.classes:
            return _labels(predictions, shape) if output.name == LABEL else _scores(predictions, shape)
        index_of = {label: index for index, label in reversed(list(enumerate(self._manifest.labels)))}
        elements = [
            _classification(best, index_of) for prediction in predictions for best in _best(prediction, output.classes)
        ]
        return BytesTensor(output.name, (len(predictions), output.classes), elements)


def _check(requested: Sequence[RequestedOutput]) -> None:
    names = [output.name for output in requested]
    if not set(names) <= set(OUTPUTS):
        raise InvalidRequest(f"the outputs of a model are {LABEL!r} and {SCORE!r}; there are no others")
    if len(set(names)) != len(names):
        raise InvalidRequest("an output may be asked for once in a request")


def _labels(predictions: Sequence[Prediction], shape: tuple[int, ...]) -> BytesTensor:
    return BytesTensor(LABEL, shape, [prediction.label.encode() for prediction in predictions])


def _scores(predictions: Sequence[Prediction], shape: tuple[int, ...]) -> FloatTensor:
    return FloatTensor(SCORE, shape, [prediction.score for prediction in predictions])


def _best(prediction: Prediction, count: int) -> Sequence[ScoredLabel]:
    """Return the ``count`` best classes."""
    best = prediction.best or (ScoredLabel(prediction.label, prediction.score),)
    if len(best) < count:
        raise ModelUnusable("the model's engine does not tell so many classes; ask for fewer of them")
    return best[:count]


def _classification(best: ScoredLabel, index_of: Mapping[str, int]) -> bytes:
    """Return ``score:index:label``, with the six decimals of Triton's."""
    index = index_of.get(best.label)
    if index is None:
        raise ModelUnusable("the model answers a label that is not in its manifest's classes; publish them together")
    return f"{best.score:f}:{index}:{best.label}".encode()
