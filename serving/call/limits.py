"""Limits on the calls of a tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one tenant. 0 means no limit."""

    requests_per_second: float = 0.0
    """Documents per second, on average over the time in which the burst is used up."""
    burst: float = 0.0
    """Documents that may arrive at once after a pause; 0: as many as may arrive in a second, and at least one."""
    in_flight: int = 0
    """Maximum number of calls that are served at the same time."""

    @property
    def most_at_once(self) -> float:
        """Burst in force, in documents."""
        return self.burst or max(1.0, self.requests_per_second)


NO_LIMITS: Final = Limits()
