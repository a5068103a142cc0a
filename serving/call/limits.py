"""How much somebody may ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one tenant. 0 stands for no limit."""

    requests_per_second: float = 0.0
    """Documents, on average over the time in which the burst is used up."""
    burst: float = 0.0
    """Documents that may come at once after a pause; 0: as many as may come in a second, and at least one."""
    in_flight: int = 0
    """Calls that are served at the same time."""

    @property
    def most_at_once(self) -> float:
        """The burst that is in force."""
        return self.burst or max(1.0, self.requests_per_second)


NO_LIMITS: Final = Limits()
