"""The state of a model at a replica of its engine, as callers see it."""

from intent_serving_client.residency import ModelResidency, ModelStatistics

__all__ = [
    "ModelResidency",
    "ModelStatistics",
]
