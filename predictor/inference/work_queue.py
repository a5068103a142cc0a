"""Work for threads, first come, first served, in a queue that has a bound and knows the deadlines of those who wait."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Generic, TypeVar

from serving.call.deadline import Deadline
from serving.domain.errors import DeadlineExceeded, Overloaded, service_ends

Result = TypeVar("Result")

_SMOOTHING: Final = 0.2
# Of the time that work is expected to take: it is not begun where even this is no longer left.
_LEAST: Final = 0.5
_SOONEST_AGAIN_SECONDS: Final = 0.05
_FULL_AGAIN_SECONDS: Final = 1.0


class WorkQueue(Generic[Result]):
    """Does work in threads. Belongs to one event loop.

    Args:
        threads: how many pieces of work are under way at the same time.
        most_waiting: pieces of work that wait for a thread; those beyond it are refused.
        name: of the threads.
    """

    def __init__(self, threads: int, most_waiting: int, *, name: str) -> None:
        self._threads = threads
        self._most_waiting = most_waiting
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._waiting: OrderedDict[_Work[Result], None] = OrderedDict()
        self._waiting_cost = 0
        self._running: set[_Work[Result]] = set()
        self._seconds_per_cost = 0.0

    @property
    def waiting(self) -> int:
        """Pieces of work that wait for a thread."""
        return len(self._waiting)

    async def do(
        self, action: Callable[[float], Result], *, cost: int, deadline: Deadline, release: Callable[[], None]
    ) -> Result:
        """Return what ``action`` returns in a thread.

        Args:
            action: the work; it may run on after its caller has left. Given the seconds that it takes at least, as far
                as that is known; 0 where it did not have to wait.
            cost: how much it is, in a measure that is the same for all work of the queue.
            deadline: when nobody waits for it any more; then it is not begun.
            release: called once it is over, or will never begin.

        Raises:
            Overloaded: it cannot be done before its deadline, or too much waits.
            DeadlineExceeded: its turn came too late.
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
                # Its caller has left.
                self._remove(work)
                release()

    def close(self) -> None:
        """Refuse what waits, and wait for what is under way."""
        while self._waiting:
            work = self._next()
            work.fail(service_ends())
            work.release()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, work: _Work[Result]) -> None:
        if len(self._running) < self._threads:
            # What is known of the pace may be of a bad moment: where nobody waits, it is found out anew.
            self._begin(work, 0.0)
            return
        if len(self._waiting) >= self._most_waiting:
            raise Overloaded("as much work waits as the predictor takes; try again shortly", _FULL_AGAIN_SECONDS)
        late = self._expected_seconds(work) - work.deadline.remaining()
        if late > 0.0:
            raise Overloaded(
                "the predictor is asked for more than it can answer, and cannot answer this before its deadline; try"
                " again later",
                max(late, _SOONEST_AGAIN_SECONDS),
            )
        self._waiting[work] = None
        self._waiting_cost += work.cost

    def _expected_seconds(self, work: _Work[Result]) -> float:
        """Return when the work would be done, in seconds from now; 0 where nothing is known of that."""
        pace, now = self._seconds_per_cost, time.monotonic()
        under_way = sum(max(0.0, running.cost * pace - (now - running.began)) for running in self._running)
        return (under_way + self._waiting_cost * pace) / self._threads + work.cost * pace

    def _begin(self, work: _Work[Result], least_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        future = self._pool.submit(work.action, least_seconds)
        work.began = time.monotonic()
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
                # Its caller has left, and its task is about to hear of it.
                work.release()
            elif work.deadline.remaining() <= least_seconds:
                work.fail(DeadlineExceeded("the deadline of the call has passed, or is too near for its answer"))
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
        pace = (time.monotonic() - work.began) / work.cost
        self._seconds_per_cost += (pace - self._seconds_per_cost) * (_SMOOTHING if self._seconds_per_cost else 1.0)


class _Work(Generic[Result]):
    """A piece of work that waits, or is under way."""

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
        """Let its caller have ``error``, where it has not left."""
        if not self.result.done():
            self.result.set_exception(error)
