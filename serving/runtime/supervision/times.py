"""Time bounds of supervision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Times:
    """Bounds, in seconds."""

    stable: float = 60.0
    """Lifetime of a worker after which it is replaced at once."""
    first_pause: float = 0.5
    """Pause before the second restart in a row; each further one is twice as long."""
    longest_pause: float = 30.0
    """Longest of these pauses."""
    look: float = 5.0
    """Interval between checks of heartbeats."""
    hang: float = 30.0
    """Age of the last heartbeat beyond which a worker counts as hung."""
    close: float = 10.0
    """Time that a worker may take to end, beyond its drain."""
    metrics: float = 5.0
    """Time that workers have to answer a scrape."""
