"""Deadline of a call. Every wait receives the deadline from its caller."""

from __future__ import annotations

import math
import time
from typing import Final, NamedTuple, Self

from serving.domain.errors import deadline_passed


class Deadline(NamedTuple):
    """A point on the monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Return the deadline ``seconds`` from now."""
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Return the seconds left; 0 once the deadline has passed."""
        return max(0.0, self.at - time.monotonic())

    def check(self) -> None:
        """Check that the deadline has not passed.

        Raises:
            DeadlineExceeded: the deadline has passed.
        """
        if self.at <= time.monotonic():
            raise deadline_passed()


NEVER: Final = Deadline(math.inf)
"""Deadline of work that no caller waits for."""
