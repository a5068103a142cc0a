"""Counters of each model for Triton's dashboards: requests, executions and times, as Triton's metrics count them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from grpc import StatusCode

from serving.domain.errors import status_of

REASONS: Final = ("OTHER", "REJECTED", "CANCELED", "BACKEND")
"""Reasons for which requests fail, by Triton's names."""

_FIRST_VERSION: Final = "1"
_REASON_OF: Final = {
    StatusCode.RESOURCE_EXHAUSTED: "REJECTED",
    StatusCode.CANCELLED: "CANCELED",
    StatusCode.INTERNAL: "BACKEND",
    StatusCode.UNAVAILABLE: "BACKEND",
    StatusCode.DATA_LOSS: "BACKEND",
    StatusCode.UNKNOWN: "BACKEND",
}


@dataclass(slots=True)
class TimesOfModel:
    """Counters of one model, which only grow. Times are in seconds, summed over all requests."""

    version: str = _FIRST_VERSION
    successes: int = 0
    """Requests that were answered; a request with many documents counts once."""
    documents: int = 0
    """Documents that were answered."""
    executions: int = 0
    """Batches with at least one query for the model."""
    request_seconds: float = 0.0
    """Duration of the requests that were answered."""
    queue_seconds: float = 0.0
    """Time spent waiting to be sent to the engine."""
    engine_seconds: float = 0.0
    """Time spent waiting for the engine's answer."""
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    """Requests that were not answered, by reason."""


class ModelTimes:
    """Counters of the models that are counted. Belongs to one event loop; any thread may read it."""

    def __init__(self) -> None:
        self._of: dict[str, TimesOfModel] = {}

    def keep(self, model_id: str, instead_of: str | None) -> None:
        """Keep counters for a model, and drop those of ``instead_of``, the model that it replaces."""
        if instead_of is not None:
            self._of.pop(instead_of, None)
        if model_id not in self._of:
            self._of[model_id] = TimesOfModel()

    def get(self, model_id: str) -> TimesOfModel | None:
        """Return the model's counters; ``None`` if they were dropped."""
        return self._of.get(model_id)

    def answered(self, model_id: str, version: str, documents: int, seconds: float) -> None:
        """Count a request that ``version`` of the model answered."""
        times = self._of.get(model_id)
        if times is None:
            return
        if version and version != times.version:
            # As in Triton, each version has counters of its own.
            if times.successes:
                times = self._of[model_id] = TimesOfModel()
            times.version = version
        times.successes += 1
        times.documents += documents
        times.request_seconds += seconds

    def failed(self, model_id: str, error: BaseException) -> None:
        """Count a request that ended with ``error``."""
        times = self._of.get(model_id)
        if times is not None:
            code = StatusCode.CANCELLED if isinstance(error, asyncio.CancelledError) else status_of(error).code
            times.failures[_REASON_OF.get(code, "OTHER")] += 1
