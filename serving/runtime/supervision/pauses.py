"""Pauses before a worker that has ended is replaced."""

from __future__ import annotations

from serving.runtime.supervision.times import Times


class RestartPauses:
    """Pauses of one worker's place, which grow while workers end soon after their start.

    Args:
        times: bounds of the pauses.
    """

    def __init__(self, times: Times) -> None:
        self._times = times
        self._restarts = 0

    def after(self, lived: float) -> float:
        """Return the seconds to wait after a process that lived for ``lived`` seconds: 0 after a stable one."""
        if lived >= self._times.stable:
            self._restarts = 0
        restarts, self._restarts = self._restarts, self._restarts + 1
        if not restarts:
            return 0.0
        # The exponent is bounded too: a worker may fail for months.
        return min(self._times.longest_pause, self._times.first_pause * 2.0 ** min(restarts - 1, 32))
