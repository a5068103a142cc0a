"""Queries and their answers, which the services share with their callers."""

from intent_serving_client.prediction import (
    Fallback,
    ModelVersion,
    Onward,
    Outcome,
    PathStep,
    Prediction,
    Query,
    ScoredLabel,
    label_in,
)

__all__ = [
    "Fallback",
    "ModelVersion",
    "Onward",
    "Outcome",
    "PathStep",
    "Prediction",
    "Query",
    "ScoredLabel",
    "label_in",
]
