"""Conversion of a model's answers to the output tensors of an inference."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from frontend.engines.thresholds import unexplained
from frontend.open_inference.tensors import (
    BEST_LABEL,
    BEST_SCORE,
    EXPLANATION,
    LABEL,
    OPTIONAL_OUTPUTS,
    OUTPUTS,
    PATH,
    SCORE,
    BytesTensor,
    FloatTensor,
    OutputTensor,
    RequestedOutput,
)
from serving.domain.errors import InvalidRequest, ModelUnusable, Unavailable
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query, ScoredLabel


class WantedOutputs:
    """Outputs that a caller requested.

    Args:
        requested: requested outputs; empty: label and score.
        manifest: manifest of the model.
        most_classes: maximum number of classes, where the query was for fewer than the model has; ``None``: all.

    Raises:
        InvalidRequest: an output does not exist, is requested twice, or has no classes.
        ModelUnusable: classes are requested, and the model's manifest has none.
    """

    def __init__(
        self, requested: Sequence[RequestedOutput], manifest: Manifest, most_classes: int | None = None
    ) -> None:
        _check(requested)
        most = len(manifest.classes) if most_classes is None else min(most_classes, len(manifest.classes))
        if not most and any(output.classes for output in requested):
            raise ModelUnusable(
                "the model's manifest has no classes; request the model's outputs without classification"
            )
        # As in Triton, a request for more classes than exist gets all of them.
        self._requested = [RequestedOutput(output.name, min(output.classes, most)) for output in requested]
        self._manifest = manifest

    @property
    def explained(self) -> bool:
        """Whether answers are to be explained."""
        return any(output.name == EXPLANATION for output in self._requested)

    def queries(
        self, model_id: ModelId, documents: Sequence[str], threshold: float | None, key: str = ""
    ) -> list[Query]:
        """Return the query for each document."""
        k = max((output.classes for output in self._requested), default=0)
        explain = () if self.explained else None
        return [Query(model_id, document, k, threshold, explain, key) for document in documents]

    def tensors_of(self, predictions: Sequence[Prediction], shape: tuple[int, ...]) -> list[OutputTensor]:
        """Return the outputs, in the requested order.

        Args:
            predictions: answer to each document, in order.
            shape: shape of the input.

        Raises:
            ModelUnusable: the engine does not report the classes that the manifest promises.
            Unavailable: classes are requested, and another version answered than that of the manifest.
        """
        if not self._requested:
            return [_labels(predictions, shape), _scores(predictions, shape)]
        return [self._tensor(output, predictions, shape) for output in self._requested]

    def _tensor(
        self, output: RequestedOutput, predictions: Sequence[Prediction], shape: tuple[int, ...]
    ) -> OutputTensor:
        if not output.classes:
            return _TENSORS[output.name](predictions, shape)
        self._expect_the_same_model(predictions)
        index_of = {label: index for index, label in reversed(list(enumerate(self._manifest.labels)))}
        elements = [
            _classification(best, index_of) for prediction in predictions for best in _best(prediction, output.classes)
        ]
        return BytesTensor(output.name, (len(predictions), output.classes), elements)

    def _expect_the_same_model(self, predictions: Sequence[Prediction]) -> None:
        """Refuse indices of the manifest's labels to answers of another version, whose labels may have other ones.

        The engine may answer from its older copy for a while after the manifest was replaced.
        """
        version = self._manifest.model_version
        if version and any(prediction.model_version not in ("", version) for prediction in predictions):
            raise Unavailable("the model is being replaced, and its former version answered; ask again")


def _check(requested: Sequence[RequestedOutput]) -> None:
    names = [output.name for output in requested]
    if not set(names) <= {*OUTPUTS, *OPTIONAL_OUTPUTS}:
        raise InvalidRequest(f"the outputs of a model are {_named(OUTPUTS)}, and on request {_named(OPTIONAL_OUTPUTS)}")
    if any(output.classes and output.name not in OUTPUTS for output in requested):
        raise InvalidRequest(f"the parameter 'classification' applies only to the outputs {_named(OUTPUTS)}")
    if len(set(names)) != len(names):
        raise InvalidRequest("an output may be requested only once in a request")


def _named(outputs: Sequence[str]) -> str:
    *others, last = map(repr, outputs)
    return f"{', '.join(others)} and {last}"


def _labels(predictions: Sequence[Prediction], shape: tuple[int, ...]) -> BytesTensor:
    return BytesTensor(LABEL, shape, [prediction.label.encode() for prediction in predictions])


def _scores(predictions: Sequence[Prediction], shape: tuple[int, ...]) -> FloatTensor:
    return FloatTensor(SCORE, shape, [prediction.score for prediction in predictions])


def _best_labels(predictions: Sequence[Prediction], shape: tuple[int, ...]) -> BytesTensor:
    return BytesTensor(BEST_LABEL, shape, [_best_of(prediction).label.encode() for prediction in predictions])


def _best_scores(predictions: Sequence[Prediction], shape: tuple[int, ...]) -> FloatTensor:
    return FloatTensor(BEST_SCORE, shape, [_best_of(prediction).score for prediction in predictions])


def _explanations(predictions: Sequence[Prediction], shape: tuple[int, ...]) -> BytesTensor:
    return BytesTensor(EXPLANATION, shape, [_explanation_of(prediction) for prediction in predictions])


def _paths(predictions: Sequence[Prediction], shape: tuple[int, ...]) -> BytesTensor:
    paths = ([step.as_dict() for step in prediction.path] for prediction in predictions)
    return BytesTensor(PATH, shape, [json.dumps(path, ensure_ascii=False).encode() for path in paths])


_TENSORS: Final[Mapping[str, Callable[[Sequence[Prediction], tuple[int, ...]], OutputTensor]]] = {
    LABEL: _labels,
    SCORE: _scores,
    BEST_LABEL: _best_labels,
    BEST_SCORE: _best_scores,
    EXPLANATION: _explanations,
    PATH: _paths,
}


def _best_of(prediction: Prediction) -> ScoredLabel:
    """Return the label with the highest score, even if the fallback label was answered in its place."""
    fallback = prediction.fallback
    return ScoredLabel(prediction.label, prediction.score) if fallback is None else fallback.best


def _explanation_of(prediction: Prediction) -> bytes:
    explanation = prediction.explanation
    if explanation is None:
        raise unexplained()
    return json.dumps(explanation.as_dict(), ensure_ascii=False).encode()


def _best(prediction: Prediction, count: int) -> Sequence[ScoredLabel]:
    """Return the ``count`` best classes."""
    best = prediction.best or (_best_of(prediction),)
    if len(best) < count:
        raise ModelUnusable("the model's engine does not return so many classes; request fewer of them")
    return best[:count]


def _classification(best: ScoredLabel, index_of: Mapping[str, int]) -> bytes:
    """Return ``score:index:label``, with six decimals as in Triton."""
    index = index_of.get(best.label)
    if index is None:
        raise ModelUnusable(
            "the model returns a label that is not in its manifest's classes; publish model and manifest together"
        )
    return f"{best.score:f}:{index}:{best.label}".encode()
