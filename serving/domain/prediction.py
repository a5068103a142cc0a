"""Queries and their answers, which the services share with their callers."""

from intent_serving_client.prediction import Fallback, Outcome, Prediction, Query, ScoredLabel, label_in

__all__ = [
    "Fallback",
    "Outcome",
    "Prediction",
    "Query",
    "ScoredLabel",
    "label_in",
]
