"""Rate-limited log of calls without a known credential."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from serving.call.counters import FailureReason

log = structlog.get_logger()

MOST_LINES: Final = 5
"""Maximum number of lines in a period."""
PERIOD_SECONDS: Final = 1.0
"""Length of a period, in seconds."""


class FailureLog:
    """Logs at most ``MOST_LINES`` lines per period; the first line after that reports how many were omitted.

    Args:
        clock: returns the time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._period_ends = 0.0
        self._lines = 0
        self._left_out = 0

    def log_failure(self, reason: FailureReason, *, identity: str = "") -> None:
        """Log a line unless the period has reached its maximum. The line never contains what the caller sent.

        Args:
            reason: why authentication failed.
            identity: owner of the credential, where known.
        """
        now = self._clock()
        if now >= self._period_ends:
            self._period_ends = now + PERIOD_SECONDS
            self._lines = 0
        if self._lines >= MOST_LINES:
            self._left_out += 1
            return
        self._lines += 1
        log.warning("authentication failed", reason=reason, identity=identity, suppressed=self._left_out)
        self._left_out = 0
