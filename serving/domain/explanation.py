"""Explanations of answers, which the services share with their callers."""

from intent_serving_client.explanation import Explanation, LabelExplanation

__all__ = [
    "Explanation",
    "LabelExplanation",
]
