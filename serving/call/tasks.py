"""Tasks that have an owner, and work that several callers wait for."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Hashable, Iterator
from typing import Any, Final, Generic, TypeVar
from weakref import WeakKeyDictionary

import structlog

from serving.call.deadline import Deadline
from serving.domain.errors import ServingError, copy_for_raise, deadline_passed, service_ends

log = structlog.get_logger()

Result = TypeVar("Result")
Key = TypeVar("Key", bound=Hashable)


_waiters: Final[WeakKeyDictionary[asyncio.Future[Any], set[asyncio.Future[None]]]] = WeakKeyDictionary()
"""Waiters for each future, until it is done."""


async def done_within(work: asyncio.Future[Any], seconds: float | None) -> bool:
    """Return whether shared work is done within some seconds; ``None``: wait until it is.

    A waiter costs the same however many there are. :func:`asyncio.wait` searches the list of all of them whenever one
    of them leaves, which takes seconds for a batch of thousands.
    """
    if work.done():
        return True
    waiters = _waiters.get(work)
    if waiters is None:
        waiters = _waiters[work] = set()
        work.add_done_callback(_wake)
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    waiters.add(waiter)
    timer = None if seconds is None else loop.call_later(seconds, _end, waiter)
    try:
        await waiter
    finally:
        waiters.discard(waiter)
        if timer is not None:
            timer.cancel()
    return work.done()


def _wake(work: asyncio.Future[Any]) -> None:
    for waiter in _waiters.pop(work, ()):
        _end(waiter)


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def joined(work: asyncio.Future[Result], deadline: Deadline | None = None) -> Result:
    """Return the result of shared work, which continues when this caller times out or is cancelled.

    Args:
        work: the task or future that several callers wait for.
        deadline: the time at which this caller stops waiting; without one, the wait ends only with the work or a
            cancellation.

    Raises:
        DeadlineExceeded: the deadline passed first.
        ServingError: the work failed; each caller gets a copy of the error.
        Unavailable: the work was cancelled because the service ends.
    """
    if not await done_within(work, None if deadline is None else deadline.remaining()):
        raise deadline_passed()
    if work.cancelled():
        raise service_ends()
    try:
        return work.result()
    except ServingError as error:
        raise copy_for_raise(error) from error.__cause__


class Tasks:
    """Owns tasks. Belongs to one event loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter([*self._running])

    def start(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Return a task that runs ``work``.

        Callers that wait for the task receive its failure. Because there may be no such callers, a failure other than a
        ServingError is a fault of the service, and is logged.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def completed(self, work: Coroutine[Any, Any, Result], failure: str) -> Result:
        """Return the result of ``work``, which continues when its caller disconnects.

        A failure is logged as the event ``failure``, and raised as :func:`joined` raises it.
        """
        task = self.start(work)
        task.add_done_callback(functools.partial(_log_failure, failure))
        return await joined(task)

    async def finish(self) -> None:
        """Wait until all tasks have ended by themselves."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def close(self) -> None:
        """Cancel all tasks, and wait until they have ended."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ServingError):
            log.error("background task failed", exc_info=error)


def _log_failure(event: str, task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info(event, reason=str(error))


class SingleFlight(Generic[Key, Result]):
    """Work by key, done once for all callers that want it at the same time.

    Args:
        tasks: owns the work.
    """

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._under_way: dict[Key, asyncio.Task[Result]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def __contains__(self, key: Key) -> bool:
        return key in self._under_way

    def get(self, key: Key) -> asyncio.Task[Result] | None:
        """Return the work that is under way for ``key``; ``None`` without any."""
        return self._under_way.get(key)

    def begin(self, key: Key, work: Callable[[], Coroutine[Any, Any, Result]]) -> asyncio.Task[Result]:
        """Return the work that is under way for ``key``; without any, begin it."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = self._tasks.start(work())
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return task
