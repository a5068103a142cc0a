"""What is counted of each model for dashboards of Triton: as its metrics count, by requests, executions and time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from grpc import StatusCode

from serving.domain.errors import status_of

REASONS: Final = ("OTHER", "REJECTED", "CANCELED", "BACKEND")
"""Why requests fail, in Triton's words."""

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
    """Counters of one model that only grow. Times are in seconds, each request's own, together."""

    version: str = _FIRST_VERSION
    successes: int = 0
    """Requests that were answered; one of many documents is one."""
    documents: int = 0
    """Documents that were answered."""
    executions: int = 0
    """Batches in which it was asked."""
    request_seconds: float = 0.0
    """Of requests that were answered."""
    queue_seconds: float = 0.0
    """Waiting to be sent to the engine."""
    engine_seconds: float = 0.0
    """Waiting for the engine's answer."""
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    """Requests that were not answered, by reason."""


class ModelTimes:
    """The counters of the models that are counted. Belongs to one event loop; read by any thread."""

    def __init__(self) -> None:
        self._of: dict[str, TimesOfModel] = {}

    def keep(self, model_id: str, instead_of: str | None) -> None:
        """Have counters for a model, and none any more for the one whose place it takes."""
        if instead_of is not None:
            self._of.pop(instead_of, None)
        if model_id not in self._of:
            self._of[model_id] = TimesOfModel()

    def get(self, model_id: str) -> TimesOfModel | None:
        """Return the model's counters; ``None`` where it has lost its place."""
        return self._of.get(model_id)

    def answered(self, model_id: str, version: str, documents: int, seconds: float) -> None:
        """Count a request that ``version`` of the model answered."""
        times = self._of.get(model_id)
        if times is None:
            return
        if version and version != times.version:
            # As in Triton, another version has counters of its own.
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
