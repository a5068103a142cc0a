"""Long work: work that waits for a thread, refused work, and work that never begins."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from predictor.inference.work_queue import WorkQueue
from serving.call.deadline import NEVER, Deadline
from serving.domain.errors import DeadlineExceeded, Overloaded, Unavailable
from tests.builders import PATIENCE
from tests.fakes.clock import FakeClock


class Busy:
    """A queue of one thread, whose first work lasts until the test lets it end."""

    def __init__(self, most_waiting: int) -> None:
        self.clock = FakeClock()
        self.queue: WorkQueue[str] = WorkQueue(1, most_waiting, name="test", clock=self.clock)
        self.done: list[str] = []
        self.released: list[str] = []
        self.least_seconds: dict[str, float] = {}
        """Least duration that each work was called with, in seconds."""
        self.may_end = threading.Event()
        self._begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def ask(self, name: str, deadline: Deadline = NEVER, *, cost: int = 1) -> asyncio.Task[str]:
        return self._ask(name, lambda: self._act(name), deadline, cost)

    async def measure(self, seconds: float) -> None:
        """Have the queue measure that work of cost 1 takes this long."""
        measured = self.ask("measured")
        await asyncio.sleep(0)
        self.clock.now += seconds
        await measured

    async def begin(self) -> asyncio.Task[str]:
        task = self._ask("first", self._first, NEVER, 1)
        await self._begun.wait()
        return task

    def _ask(self, name: str, action: Callable[[], str], deadline: Deadline, cost: int) -> asyncio.Task[str]:
        def begin(least_seconds: float) -> str:
            self.least_seconds[name] = least_seconds
            return action()

        return asyncio.ensure_future(
            self.queue.do(begin, cost=cost, deadline=deadline, release=lambda: self.released.append(name))
        )

    def _first(self) -> str:
        self._loop.call_soon_threadsafe(self._begun.set)
        assert self.may_end.wait(PATIENCE)
        return self._act("first")

    def _act(self, name: str) -> str:
        self.done.append(name)
        if name.startswith("bad"):
            raise ZeroDivisionError
        return name


@asynccontextmanager
async def busy(most_waiting: int = 10) -> AsyncIterator[Busy]:
    made = Busy(most_waiting)
    try:
        yield made
    finally:
        made.may_end.set()
        made.queue.close()
        await asyncio.sleep(0)


async def test_work_is_done_in_the_order_of_its_arrival_and_its_result_or_error_comes_back() -> None:
    async with busy() as made:
        first = await made.begin()
        others = [made.ask(name) for name in ("a", "bad", "b")]
        await asyncio.sleep(0)
        made.may_end.set()

        assert await first == "first"
        assert await asyncio.gather(*others, return_exceptions=True) == ["a", others[1].exception(), "b"]
        assert isinstance(others[1].exception(), ZeroDivisionError)
        assert made.done == made.released == ["first", "a", "bad", "b"]


async def test_work_beyond_the_bound_is_refused_and_what_waits_is_not() -> None:
    async with busy(most_waiting=1) as made:
        first = await made.begin()
        waits = made.ask("a")
        await asyncio.sleep(0)

        with pytest.raises(Overloaded) as refused:
            await made.ask("b")

        assert refused.value.retry_after is not None
        assert made.released == ["b"]
        made.may_end.set()
        assert [await first, await waits] == ["first", "a"]


async def test_a_caller_who_leaves_takes_its_work_out_of_the_queue_at_once() -> None:
    async with busy() as made:
        first = await made.begin()
        leaving, staying = made.ask("leaving"), made.ask("staying")
        await asyncio.sleep(0)

        leaving.cancel()
        await asyncio.sleep(0)

        assert made.released == ["leaving"]
        assert made.queue.waiting == 1
        made.may_end.set()
        assert [await first, await staying] == ["first", "staying"]
        assert made.done == ["first", "staying"]


async def test_a_caller_who_leaves_while_a_thread_is_at_it_keeps_what_it_uses_until_the_end() -> None:
    async with busy() as made:
        first = await made.begin()
        next_one = made.ask("a")
        first.cancel()
        await asyncio.sleep(0)
        assert made.released == []

        made.may_end.set()

        assert await next_one == "a"
        assert made.released == ["first", "a"]


async def test_work_whose_deadline_has_passed_when_its_turn_comes_is_never_begun() -> None:
    async with busy() as made:
        await made.begin()
        deadline = Deadline.after(0.05)
        late = made.ask("late", deadline)
        await asyncio.sleep(0)
        await asyncio.sleep(deadline.remaining() + 0.01)

        made.may_end.set()

        with pytest.raises(DeadlineExceeded):
            await late
        assert made.done == ["first"]
        assert made.released == ["first", "late"]


async def test_work_whose_deadline_is_too_near_for_it_when_its_turn_comes_is_never_begun() -> None:
    async with busy() as made:
        await made.begin()
        late = made.ask("late", Deadline.after(30.0), cost=100)
        patient = made.ask("patient", Deadline.after(300.0), cost=100)
        await asyncio.sleep(0)
        made.clock.now += 1.0

        made.may_end.set()

        with pytest.raises(DeadlineExceeded):
            await late
        assert await patient == "patient"
        assert made.least_seconds["first"] == 0.0
        assert made.least_seconds["patient"] == 50.0
        assert made.released == ["first", "late", "patient"]


async def test_work_that_cannot_be_done_before_its_deadline_is_refused_at_once() -> None:
    async with busy() as made:
        await made.measure(1.0)
        await made.begin()
        patient = made.ask("patient", Deadline.after(100.0), cost=50)
        await asyncio.sleep(0)

        with pytest.raises(Overloaded, match="before the deadline") as refused:
            await asyncio.wait_for(made.ask("hasty", Deadline.after(10.0)), PATIENCE)

        assert refused.value.retry_after == pytest.approx(52 - 10, abs=5)
        assert made.queue.waiting == 1
        made.may_end.set()
        assert await patient == "patient"
        assert "hasty" not in made.done


async def test_what_waits_when_the_queue_closes_is_refused() -> None:
    made = Busy(10)
    first = await made.begin()
    waits = made.ask("a")
    await asyncio.sleep(0)
    made.may_end.set()

    made.queue.close()

    with pytest.raises(Unavailable, match="shutting down"):
        await waits
    assert await first == "first"
    assert sorted(made.released) == ["a", "first"]
