"""Thresholds, and refusals of explanations, for engines that support neither."""

from __future__ import annotations

from serving.domain.confidence import Confidence
from serving.domain.errors import ModelUnusable
from serving.domain.prediction import Outcome, Prediction, Query


def held_against_threshold(
    prediction: Prediction, query: Query, confidence: Confidence, fallback_score: float = 0.0
) -> Prediction:
    """Return the answer, or the fallback label if its score is below the threshold.

    Args:
        prediction: the best label and its score.
        query: may have a threshold of its own.
        confidence: confidence section of the model's manifest.
        fallback_score: the probability of the fallback label; 0 if the engine does not report it.
    """
    fallback = confidence.fallback_of(prediction.label, prediction.score, query.threshold)
    if fallback is None:
        return prediction
    return prediction._replace(label=confidence.fallback, score=fallback_score, fallback=fallback)


def without_score(prediction: Prediction, query: Query, confidence: Confidence) -> Outcome:
    """Return the answer of an engine that reports no scores, or an error if a threshold needs one."""
    if confidence.fallback_of(prediction.label, 0.0, query.threshold) is None:
        return prediction
    return ModelUnusable("the model's engine returns no scores, so no threshold can be applied; set the threshold to 0")


def unexplained(remedy: str = "do not request an explanation") -> ModelUnusable:
    """Return the error for a query that asks for an explanation from an engine that gives none."""
    return ModelUnusable(f"the model's engine does not explain its answers; {remedy}")
