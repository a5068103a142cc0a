"""Bounds of the time that parts of supervision may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Times:
    """Bounds, in seconds."""

    stable: float = 60.0
    """Life of a worker after which the next one follows at once."""
    first_pause: float = 0.5
    """Pause before the second restart in a row; each further one is twice as long."""
    longest_pause: float = 30.0
    """Bound of these pauses."""
    look: float = 5.0
    """Interval in which heartbeats are looked at."""
    hang: float = 30.0
    """Age of the last heartbeat of a worker that hangs."""
    close: float = 10.0
    """Time that a worker may take to end, beyond its drain."""
    metrics: float = 5.0
    """Time that workers have to answer a scrape."""
