"""Cancels a task at a deadline: what ``asyncio.timeout`` does, for those who pay for every microsecond of each call."""

from __future__ import annotations

import asyncio

from serving.deadline import Deadline
from serving.transport.alarms import alarms_of


class Expiry:
    """Cancels the current task when ``deadline`` passes, until :meth:`cancel`."""

    __slots__ = ("_expired", "_task", "_timer")

    def __init__(self, deadline: Deadline) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("only a task has a deadline")
        self._task = task
        self._expired = False
        self._timer = alarms_of(loop).after(deadline.remaining(), self._expire)

    def forgiven(self) -> bool:
        """Whether a cancellation was ours, and nobody else's too; then the task goes on."""
        # As asyncio.timeout does: somebody else may have cancelled the task at the same time.
        return self._expired and self._task.uncancel() == 0

    def cancel(self) -> None:
        """Let the deadline pass."""
        self._timer.cancel()

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
