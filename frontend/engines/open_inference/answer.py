"""Conversion of an answer of the Open Inference Protocol into outcomes of the queries."""

from __future__ import annotations

import math
from collections.abc import Sequence

from frontend.engines.open_inference.softmax import most_likely, softmax
from frontend.engines.open_inference.tensors import numbers_in, tensor_of, texts_in, unfit
from frontend.engines.thresholds import held_against_threshold, unexplained, without_score
from serving.domain.confidence import Confidence
from serving.domain.errors import InvalidManifest, NonFiniteLogits
from serving.domain.manifest import Manifest
from serving.domain.prediction import Outcome, Prediction, Query, ScoredLabel
from serving.stubs import open_inference_pb2 as pb


def outcomes_of(response: pb.ModelInferResponse, manifest: Manifest, queries: Sequence[Query]) -> list[Outcome]:
    """Return the outcome of each query, in order.

    A model that answers with logits gives the ``k`` best labels. A model that answers with a label gives this label as
    the only best one if the label has a score, and no best labels otherwise. Explanations are not supported.

    Raises:
        ModelUnusable: the answer does not match the manifest.
    """
    version = manifest.model_version or response.model_version
    model = manifest.open_inference
    if model.label is not None:
        outcomes = _of_labels(response, model.label, queries, manifest, version)
    else:
        assert model.logits is not None  # noqa: S101 - a manifest names one or the other
        outcomes = _of_logits(response, model.logits, queries, manifest, version)
    return [
        outcome if query.explain is None else unexplained() for query, outcome in zip(queries, outcomes, strict=True)
    ]


def _of_labels(
    response: pb.ModelInferResponse, output: str, queries: Sequence[Query], manifest: Manifest, version: str
) -> list[Outcome]:
    score, count = manifest.open_inference.score, len(queries)
    texts = texts_in(tensor_of(response, output), [count])
    scores = [None] * count if score is None else numbers_in(tensor_of(response, score), [count])
    return [
        unfit(output, "is not UTF-8 text")
        if (label := _decoded(text)) is None
        else _labelled(query, label, number, manifest.confidence, version)
        for query, text, number in zip(queries, texts, scores, strict=True)
    ]


def _decoded(text: bytes) -> str | None:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


def _labelled(query: Query, label: str, score: float | None, confidence: Confidence, version: str) -> Outcome:
    if score is None:
        return without_score(Prediction(label, 0.0, (), query.model_id, version), query, confidence)
    if not math.isfinite(score):
        return _not_finite()
    best = (ScoredLabel(label, score),) if query.k > 0 else ()
    return held_against_threshold(Prediction(label, score, best, query.model_id, version), query, confidence)


def _of_logits(
    response: pb.ModelInferResponse, output: str, queries: Sequence[Query], manifest: Manifest, version: str
) -> list[Outcome]:
    labels = manifest.labels
    width = len(labels)
    if not width:
        raise InvalidManifest("manifest.json has no classes; add the labels of the model's logits")
    numbers = numbers_in(tensor_of(response, output), [len(queries), width])
    return [
        _likeliest(query, numbers[row * width : (row + 1) * width], labels, manifest.confidence, version)
        for row, query in enumerate(queries)
    ]


def _likeliest(
    query: Query, logits: Sequence[float], labels: Sequence[str], confidence: Confidence, version: str
) -> Outcome:
    if not all(map(math.isfinite, logits)):
        return _not_finite()
    scores = softmax(logits, confidence.temperature)
    ranked = [ScoredLabel(labels[index], scores[index]) for index in most_likely(logits, max(1, query.k))]
    best = tuple(ranked) if query.k > 0 else ()
    prediction = Prediction(*ranked[0], best, query.model_id, version)
    fallback_score = scores[labels.index(confidence.fallback)] if confidence.fallback in labels else 0.0
    return held_against_threshold(prediction, query, confidence, fallback_score)


def _not_finite() -> NonFiniteLogits:
    return NonFiniteLogits("the model's answer is not a number; train the model again")
