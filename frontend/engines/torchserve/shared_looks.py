"""Looks at changing state of TorchServe, shared by all callers that need one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from serving.call.deadline import Deadline
from serving.call.tasks import Tasks, joined

Result = TypeVar("Result")


class Looks(Generic[Result]):
    """Reads state that changes; one read serves all callers that ask before the read begins.

    Args:
        look: reads the current state.
        tasks: owns the reads.
    """

    def __init__(self, look: Callable[[], Awaitable[Result]], tasks: Tasks) -> None:
        self._look = look
        self._tasks = tasks
        self._under_way: asyncio.Task[Result] | None = None
        self._next: asyncio.Task[Result] | None = None

    async def begun_from_now(self, deadline: Deadline) -> Result:
        """Return the result of a read that begins after this call. Raises the read's error, or DeadlineExceeded."""
        if self._next is None:
            self._next = self._tasks.start(self._after(self._under_way))
        return await joined(self._next, deadline)

    async def _after(self, former: asyncio.Task[Result] | None) -> Result:
        if former is not None:
            await asyncio.wait({former})
        self._under_way, self._next = self._next, None
        return await self._look()
