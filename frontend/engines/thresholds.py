"""Answers of engines that know nothing of thresholds and explanations: what callers are told all the same."""

from __future__ import annotations

from serving.domain.confidence import Confidence
from serving.domain.errors import ModelUnusable
from serving.domain.prediction import Outcome, Prediction, Query


def held_against_threshold(
    prediction: Prediction, query: Query, confidence: Confidence, fallback_score: float = 0.0
) -> Prediction:
    """Return the answer, or the fallback label where its score is below the threshold.

    Args:
        prediction: the best label and its score.
        query: may have a threshold of its own.
        confidence: of the model's manifest.
        fallback_score: the probability of the fallback label; 0 where the engine does not tell it.
    """
    fallback = confidence.fallback_of(prediction.label, prediction.score, query.threshold)
    if fallback is None:
        return prediction
    return prediction._replace(label=confidence.fallback, score=fallback_score, fallback=fallback)


def without_score(prediction: Prediction, query: Query, confidence: Confidence) -> Outcome:
    """Return the answer of an engine that tells no scores: an error, where a threshold would need one."""
    if confidence.fallback_of(prediction.label, 0.0, query.threshold) is None:
        return prediction
    return ModelUnusable("the model's engine tells no scores, so no threshold can be applied; ask with the threshold 0")


def unexplained(remedy: str = "ask without an explanation") -> ModelUnusable:
    """Return the error of a query that asks an engine for an explanation which has none."""
    return ModelUnusable(f"the model's engine does not explain its answers; {remedy}")
