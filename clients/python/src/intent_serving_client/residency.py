"""State of a model at a replica of its engine, whatever the engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """Counts of the queries to one copy of a model, and of its answers."""

    documents: int
    empty_documents: int
    """Documents without any token that the model knows."""
    tokens: int
    unknown_tokens: int
    fallbacks: int
    """Answers whose best label was below the threshold."""
    seconds: float
    """Duration of the counting, in seconds."""


@dataclass(frozen=True, slots=True)
class ModelResidency:
    """State of a model at a replica of its engine."""

    replica: str
    """Name of the replica, different for each process."""
    resident: bool
    """Whether the model is in the replica's memory; if not, only the statistics are meaningful."""
    pinned: bool = False
    generation: int = 0
    bytes: int = 0
    idle_seconds: float = 0.0
    leases: int = 0
    hits: int = 0
    statistics: ModelStatistics | None = None
    """``None`` if the model received no queries at the replica, or the engine reports no statistics."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)
