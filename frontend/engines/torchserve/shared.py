"""Work that many wait for, each until a deadline of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from serving.call.deadline import Deadline
from serving.domain.errors import DeadlineExceeded, ServingError, copy_for_raise, service_ends

Result = TypeVar("Result")


async def joined(task: asyncio.Task[Result], deadline: Deadline) -> Result:
    """Return what a shared task gives. Who leaves, or comes to the deadline, does not end it.

    Raises:
        DeadlineExceeded: the deadline passed first.
        ServingError: the task failed.
    """
    done, _ = await asyncio.wait({task}, timeout=deadline.remaining())
    if not done:
        raise DeadlineExceeded("the deadline of the call has passed")
    if task.cancelled():
        raise service_ends()
    try:
        return task.result()
    except ServingError as error:
        raise copy_for_raise(error) from error.__cause__


class Tasks:
    """Owns tasks."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Return a task that does ``work``. Its failure is for those who wait for it, and there may be none."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._end)
        return task

    async def close(self) -> None:
        """End all of them."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()


class Looks(Generic[Result]):
    """Looks at something that changes, once for all who ask meanwhile.

    Args:
        look: looks.
        tasks: owns the looks.
    """

    def __init__(self, look: Callable[[], Awaitable[Result]], tasks: Tasks) -> None:
        self._look = look
        self._tasks = tasks
        self._under_way: asyncio.Task[Result] | None = None
        self._next: asyncio.Task[Result] | None = None

    async def begun_from_now(self, deadline: Deadline) -> Result:
        """Return what a look sees that begins after this was asked. Raises as the look does, and DeadlineExceeded."""
        if self._next is None:
            self._next = self._tasks.start(self._after(self._under_way))
        return await joined(self._next, deadline)

    async def _after(self, former: asyncio.Task[Result] | None) -> Result:
        if former is not None:
            await asyncio.wait({former})
        self._under_way, self._next = self._next, None
        return await self._look()
