"""A bounded queue of work for threads: first come, first served, with deadlines."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Generic, TypeVar

from serving.call.deadline import Deadline
from serving.call.overload import no_room, no_time
from serving.domain.errors import DeadlineExceeded, service_ends

Result = TypeVar("Result")

_SMOOTHING: Final = 0.2
# Share of the expected duration of work: with less time left, the work is not begun.
_LEAST: Final = 0.5


class WorkQueue(Generic[Result]):
    """Runs work in threads. Belongs to one event loop.

    Args:
        threads: maximum number of pieces of work that run at the same time.
        most_waiting: maximum number of pieces of work that wait for a thread; further work is refused.
        name: prefix of the names of the threads.
        clock: measures how long work takes, in seconds.
    """

    def __init__(
        self, threads: int, most_waiting: int, *, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._threads = threads
        self._most_waiting = most_waiting
        self._clock = clock
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._waiting: OrderedDict[_Work[Result], None] = OrderedDict()
        self._waiting_cost = 0
        self._running: set[_Work[Result]] = set()
        self._seconds_per_cost = 0.0

    @property
    def waiting(self) -> int:
        """Number of pieces of work that wait for a thread."""
        return len(self._waiting)

    async def do(
        self, action: Callable[[float], Result], *, cost: int, deadline: Deadline, release: Callable[[], None]
    ) -> Result:
        """Return the result of ``action``, which runs in a thread.

        Args:
            action: the work; it may continue after its caller left. It is called with the shortest time that the work
                is expected to take, in seconds; 0 if that is unknown, or the work did not wait.
            cost: the amount of work, in a unit that is the same for all work of the queue.
            deadline: the moment after which no caller waits for the work; work is not begun after it.
            release: called once the work has ended, or will never begin.

        Raises:
            Overloaded: the work cannot be done before its deadline, or the queue is full.
            DeadlineExceeded: the deadline passed, or came too near, while the work waited.
            Unavailable: the queue is closed.
        """
        work: _Work[Result] = _Work(action, cost, deadline, release, asyncio.get_running_loop().create_future())
        try:
            self._take(work)
        except BaseException:
            release()
            raise
        try:
            return await work.result
        finally:
            if work in self._waiting:
                # The caller left.
                self._remove(work)
                release()

    def close(self) -> None:
        """Refuse waiting work, and wait for running work."""
        while self._waiting:
            work = self._next()
            work.fail(service_ends())
            work.release()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, work: _Work[Result]) -> None:
        if len(self._running) < self._threads:
            # The known pace may be from an unusually slow moment: without a queue, it is measured again.
            self._begin(work, 0.0)
            return
        if len(self._waiting) >= self._most_waiting:
            raise no_room("the predictor's queue is full")
        late = self._expected_seconds(work) - work.deadline.remaining()
        if late > 0.0:
            raise no_time("the predictor", late)
        self._waiting[work] = None
        self._waiting_cost += work.cost

    def _expected_seconds(self, work: _Work[Result]) -> float:
        """Return the seconds until the work would be done; 0 if the pace is unknown."""
        pace, now = self._seconds_per_cost, self._clock()
        under_way = sum(max(0.0, running.cost * pace - (now - running.began)) for running in self._running)
        return (under_way + self._waiting_cost * pace) / self._threads + work.cost * pace

    def _begin(self, work: _Work[Result], least_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        future = self._pool.submit(work.action, least_seconds)
        work.began = self._clock()
        self._running.add(work)
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(self._end, work, done))

    def _end(self, work: _Work[Result], done: Future[Result]) -> None:
        self._running.discard(work)
        work.release()
        if done.cancelled():
            work.fail(service_ends())
            return
        error = done.exception()
        if error is not None:
            work.fail(error)
        else:
            self._learn(work)
            if not work.result.done():
                work.result.set_result(done.result())
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and len(self._running) < self._threads:
            work = self._next()
            least_seconds = work.cost * self._seconds_per_cost * _LEAST
            if work.result.done():
                # The caller left, and its task will run next.
                work.release()
            elif work.deadline.remaining() <= least_seconds:
                work.fail(DeadlineExceeded("the deadline of the call has passed, or is too near for an answer"))
                work.release()
            else:
                self._begin(work, least_seconds)

    def _next(self) -> _Work[Result]:
        work = next(iter(self._waiting))
        self._remove(work)
        return work

    def _remove(self, work: _Work[Result]) -> None:
        del self._waiting[work]
        self._waiting_cost -= work.cost

    def _learn(self, work: _Work[Result]) -> None:
        pace = (self._clock() - work.began) / work.cost
        self._seconds_per_cost += (pace - self._seconds_per_cost) * (_SMOOTHING if self._seconds_per_cost else 1.0)


class _Work(Generic[Result]):
    """A piece of work that waits or runs."""

    __slots__ = ("action", "began", "cost", "deadline", "release", "result")

    def __init__(
        self,
        action: Callable[[float], Result],
        cost: int,
        deadline: Deadline,
        release: Callable[[], None],
        result: asyncio.Future[Result],
    ) -> None:
        self.action = action
        self.cost = cost
        self.deadline = deadline
        self.release = release
        self.result = result
        self.began = 0.0

    def fail(self, error: BaseException) -> None:
        """Fail the caller with ``error``, unless the caller left."""
        if not self.result.done():
            self.result.set_exception(error)
