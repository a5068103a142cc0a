"""What a server of the Open Inference Protocol answers, as outcomes of the queries."""

from __future__ import annotations

import math
from collections.abc import Sequence

from frontend.backends.open_inference.softmax import most_likely
from frontend.backends.open_inference.tensors import numbers_in, tensor_of, texts_in, unfit
from serving.errors import InvalidManifest, NonFiniteLogits
from serving.manifest import Manifest
from serving.prediction import Outcome, Prediction, Query, ScoredLabel
from serving.stubs import open_inference_pb2 as pb


def outcomes_of(response: pb.ModelInferResponse, manifest: Manifest, queries: Sequence[Query]) -> list[Outcome]:
    """Return the outcome of each query, in order.

    Of a model that answers with logits the ``k`` best labels are known; of one that answers with labels the label
    itself, where it has a score, and without one none.

    Raises:
        ModelUnusable: the answer is not what the manifest says.
    """
    version = manifest.model_version or response.model_version
    model = manifest.open_inference
    if model.label is not None:
        return _of_labels(response, model.label, model.score, queries, version)
    assert model.logits is not None  # noqa: S101 - a manifest names one or the other
    return _of_logits(response, model.logits, manifest.labels, queries, version)


def _of_labels(
    response: pb.ModelInferResponse, label: str, score: str | None, queries: Sequence[Query], version: str
) -> list[Outcome]:
    texts = texts_in(tensor_of(response, label), [len(queries)])
    scores = [0.0] * len(queries) if score is None else numbers_in(tensor_of(response, score), [len(queries)])
    return [
        _labelled(query, text, number, label, version, scored=score is not None)
        for query, text, number in zip(queries, texts, scores, strict=True)
    ]


def _labelled(query: Query, text: bytes, score: float, output: str, version: str, *, scored: bool) -> Outcome:
    try:
        label = text.decode()
    except UnicodeDecodeError:
        return unfit(output, "is no UTF-8 text")
    if not math.isfinite(score):
        return _not_finite()
    best = (ScoredLabel(label, score),) if scored and query.k > 0 else ()
    return Prediction(label, score, best, query.model_id, version)


def _of_logits(
    response: pb.ModelInferResponse, output: str, labels: Sequence[str], queries: Sequence[Query], version: str
) -> list[Outcome]:
    width = len(labels)
    if not width:
        raise InvalidManifest("manifest.json has no classes; a model that answers with logits needs their labels")
    numbers = numbers_in(tensor_of(response, output), [len(queries), width])
    return [
        _likeliest(query, numbers[row * width : (row + 1) * width], labels, version)
        for row, query in enumerate(queries)
    ]


def _likeliest(query: Query, logits: Sequence[float], labels: Sequence[str], version: str) -> Outcome:
    if not all(map(math.isfinite, logits)):
        return _not_finite()
    ranked = [ScoredLabel(labels[index], score) for index, score in most_likely(logits, max(1, query.k))]
    best = tuple(ranked) if query.k > 0 else ()
    return Prediction(ranked[0].label, ranked[0].score, best, query.model_id, version)


def _not_finite() -> NonFiniteLogits:
    return NonFiniteLogits("the model's answer is not a number; train it again")
