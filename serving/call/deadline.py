"""The moment a call has to be answered by. Every wait takes it from its caller."""

from __future__ import annotations

import math
import time
from typing import Final, NamedTuple, Self

from serving.domain.errors import DeadlineExceeded


class Deadline(NamedTuple):
    """A point on the monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Return the deadline ``seconds`` from now."""
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Return the seconds left, 0 once it has passed."""
        return max(0.0, self.at - time.monotonic())

    def check(self) -> None:
        """Return if there is time left.

        Raises:
            DeadlineExceeded: it has passed.
        """
        if self.at <= time.monotonic():
            raise DeadlineExceeded("the deadline of the call has passed")


NEVER: Final = Deadline(math.inf)
"""The deadline of work that nobody waits for."""
