"""Predictions in the JSON form that commands print."""

from __future__ import annotations

from typing import Any

from serving.domain.errors import ServingError, status_of
from serving.domain.prediction import Outcome


def as_dict(document: str, outcome: Outcome) -> dict[str, Any]:
    """Return the answer to a document, or the error, with all its fields except the explanation."""
    if isinstance(outcome, ServingError):
        status = status_of(outcome)
        return {"document": document, "error": {"code": status.code.name, "message": status.message}}
    return {
        "document": document,
        "label": outcome.label,
        "score": outcome.score,
        "best": [{"label": best.label, "score": best.score} for best in outcome.best],
        "fallback": None if outcome.fallback is None else outcome.fallback.as_dict(),
        "model": {"id": outcome.model_id, "version": outcome.model_version},
        **({"path": [step.as_dict() for step in outcome.path]} if outcome.path else {}),
    }
