"""A model at a replica of its engine, whatever the engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """What one copy of a model was asked, and what it answered."""

    documents: int
    empty_documents: int
    """Those without any token that the model knows."""
    tokens: int
    unknown_tokens: int
    fallbacks: int
    """Answers whose best label was below the threshold."""
    seconds: float
    """For how long it has been counted."""


@dataclass(frozen=True, slots=True)
class ModelResidency:
    """A model at a replica of its engine."""

    replica: str
    """The replica's name: another one for each process."""
    resident: bool
    """Whether the model is in memory there; without it nothing but the statistics says anything."""
    pinned: bool = False
    generation: int = 0
    bytes: int = 0
    idle_seconds: float = 0.0
    leases: int = 0
    hits: int = 0
    statistics: ModelStatistics | None = None
    """``None`` where it was asked nothing there, or the engine does not tell."""

    def as_dict(self) -> dict[str, Any]:
        """Return its fields by name."""
        return asdict(self)
