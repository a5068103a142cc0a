"""Tells of calls without a credential that is known. However many there are, the log stays short."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from serving.call.counters import FailureReason

log = structlog.get_logger()

MOST_LINES: Final = 5
"""In each period."""
PERIOD_SECONDS: Final = 1.0


class FailureLog:
    """Writes at most so many lines in a period; the first line of the next tells how many were left out.

    Args:
        clock: tells seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._period_ends = 0.0
        self._lines = 0
        self._left_out = 0

    def tell(self, reason: FailureReason, *, identity: str = "") -> None:
        """Write a line, if there is room for it. What was sent is nowhere in it.

        Args:
            reason: what was wrong.
            identity: whose credential it was, where that is known.
        """
        now = self._clock()
        if now >= self._period_ends:
            self._period_ends = now + PERIOD_SECONDS
            self._lines = 0
        if self._lines >= MOST_LINES:
            self._left_out += 1
            return
        self._lines += 1
        log.warning("authentication failed", reason=reason, identity=identity, left_out=self._left_out)
        self._left_out = 0
