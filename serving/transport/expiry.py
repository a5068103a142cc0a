"""Cancels a task at a deadline: what ``asyncio.timeout`` does, for those who pay for every microsecond of each call."""

from __future__ import annotations

import asyncio
from typing import Protocol

from grpc_http2.alarms import alarms_of
from serving.deadline import Deadline


class Expiry(Protocol):
    """Sees to it that a task is cancelled at a deadline."""

    def forgiven(self) -> bool:
        """Whether a cancellation was its own, and nobody else's too; then the task goes on."""

    def close(self) -> None:
        """Let the deadline pass."""


class TaskExpiry:
    """Cancels the current task when ``deadline`` passes, until :meth:`close`."""

    __slots__ = ("_alarm", "_expired", "_task")

    def __init__(self, deadline: Deadline) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("only a task has a deadline")
        self._task = task
        self._expired = False
        self._alarm = alarms_of(loop).after(deadline.remaining(), self._expire)

    def forgiven(self) -> bool:
        """Whether a cancellation was ours, and nobody else's too; then the task goes on."""
        # As asyncio.timeout does: somebody else may have cancelled the task at the same time.
        return self._expired and self._task.uncancel() == 0

    def close(self) -> None:
        """Let the deadline pass."""
        self._alarm.cancel()

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
