"""A model at a replica of its engine, whatever the engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Residence:
    """A model at a replica of its engine."""

    replica: str
    """The replica's name: another one for each process."""
    resident: bool
    """Whether the model is in memory there; without it the rest says nothing."""
    pinned: bool = False
    generation: int = 0
    bytes: int = 0
    idle_seconds: float = 0.0
    leases: int = 0
    hits: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return its fields by name."""
        return asdict(self)
