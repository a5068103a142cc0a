"""Bounds and times of releases on the frontend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ReleaseBounds:
    """Bounds that protect callers from versions on trial."""

    most_canary_seconds: float = 10.0
    """Maximum time that a canary has for an answer, in seconds. A canary that hangs must leave time for stable."""
    slow_seconds: float = 1.0
    """Time after which a canary counts as slow, in seconds. A canary that had less may have had too little time."""
    comparison_seconds: float = 5.0
    """Time limit of a comparison, in seconds."""
    retry_pauses_seconds: tuple[float, ...] = (0.1, 0.5, 2.0)
    """Pauses between attempts to write a release without its canary, in seconds."""
    most_rollouts: int = 10_000
    """Maximum number of names whose rollout is kept."""


BOUNDS: Final = ReleaseBounds()
