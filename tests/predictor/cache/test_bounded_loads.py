from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from predictor.cache.model_manager import ManagerBounds
from serving.domain.errors import LoadTooSlow, ModelTooLarge, ModelUnusable
from serving.domain.model_id import ModelId
from tests.builders import PATIENCE, fingerprint_of, happened
from tests.predictor.cache.test_model_manager import A, B, C, bench, refusal_of

SLOW = ManagerBounds(quick_processor_seconds=0.02, processor_seconds=0.05, aside_seconds=1e6)


@pytest.fixture(autouse=True)
def events() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


# Memory.


async def test_the_memory_of_every_step_of_a_load_is_reserved_before_the_step() -> None:
    async with bench(max_bytes=1000) as it:
        held: list[int] = []
        steps = [10, 400, 300]
        it.source.steps[fingerprint_of(1)] = _Watched(steps, lambda: held.append(it.residents.bytes_held))
        (await it.manager.acquire(A)).release()
        assert held == [10, 10, 400, 400], "a reservation grows, and shrinks only to the size of the model"
        assert it.residents.bytes_held == 10


class _Watched(list[int]):
    """Steps that report each begin."""

    def __init__(self, steps: list[int], begun: Any) -> None:
        super().__init__(steps)
        self._begun = begun

    def __iter__(self) -> Iterator[int]:
        for step in super().__iter__():
            self._begun()
            yield step
        self._begun()


async def test_a_load_that_needs_more_than_the_budget_is_refused_before_it_takes_the_memory() -> None:
    async with bench(max_bytes=1000) as it:
        (await it.manager.acquire(B)).release()
        it.source.steps[fingerprint_of(1)] = [10, 1001]
        assert isinstance(await refusal_of(it, A), ModelTooLarge)
        assert it.source.loads == {B: 1}
        assert it.residents.bytes_held == 10, "nothing was evicted, and nothing stays reserved"


async def test_a_load_that_grows_makes_room_like_any_other() -> None:
    async with bench(max_bytes=1000) as it:
        (await it.manager.acquire(B)).release()
        it.source.steps[fingerprint_of(1)] = [10, 995]
        (await it.manager.acquire(A)).release()
        assert it.residents.seen(B) is None


# Processor time.


async def test_a_load_of_endless_work_is_refused_and_remembered_as_bad(events: list[Any]) -> None:
    async with bench(bounds=SLOW) as it:
        it.source.busy.add(fingerprint_of(1))
        refusal = await refusal_of(it, A)
        assert isinstance(refusal, LoadTooSlow)
        assert isinstance(refusal, ModelUnusable), "the status tells the caller that a retry does not help"
        assert it.residents.statistics.failures == {"load_too_slow": 1}
        assert it.residents.bytes_held == 0
        assert [event["model"] for event in events if event["event"] == "load takes too long"] == [A]
        # From here on, it would load at once.
        it.source.busy.clear()
        assert isinstance(await refusal_of(it, A), LoadTooSlow)
        it.source.files[A] = fingerprint_of(11)
        assert await it.mark(A) == 11


async def test_a_costly_failure_is_remembered_for_longer_than_a_cheap_one() -> None:
    brief = ManagerBounds(
        failure_seconds=0.0, costly_seconds=0.01, quick_processor_seconds=0.02, processor_seconds=0.05
    )
    async with bench(bounds=brief) as it:
        it.source.faults[fingerprint_of(2)] = ModelUnusable("bad")
        it.source.busy.add(fingerprint_of(1))
        for _ in range(2):
            assert isinstance(await refusal_of(it, A), LoadTooSlow)
            assert type(await refusal_of(it, B)) is ModelUnusable
        it.source.busy.clear()
        it.source.faults.clear()
        assert isinstance(await refusal_of(it, A), LoadTooSlow)
        assert await it.mark(B) == 2


async def test_a_load_that_is_slow_holds_up_no_other() -> None:
    endless = ManagerBounds(quick_processor_seconds=0.02, processor_seconds=1e6, aside_seconds=1e6)
    async with bench(bounds=endless, threads=1) as it:
        it.source.busy |= {fingerprint_of(1), fingerprint_of(2)}
        slow = [asyncio.create_task(it.manager.acquire(name)) for name in (A, B)]
        # Both are beyond their share of the only quick thread, however many there are; each was tried there once.
        assert await it.mark(C) == 3
        assert not any(task.done() for task in slow)
        it.source.busy.clear()
        for task in slow:
            (await asyncio.wait_for(task, PATIENCE)).release()


async def test_a_load_that_hangs_in_the_volume_holds_up_no_other() -> None:
    async with bench(bounds=ManagerBounds(aside_seconds=0.001), threads=1) as it:
        hangs = threading.Event()
        go_through = it.source.load_gate.go_through
        first = threading.Event()

        def hang_once() -> None:
            if not first.is_set():
                first.set()
                hangs.wait(PATIENCE)
            go_through()

        it.source.load_gate.go_through = hang_once  # type: ignore[method-assign]
        slow = asyncio.create_task(it.manager.acquire(A))
        await happened(first)
        assert await it.mark(B) == 2
        assert not slow.done()
        hangs.set()
        (await asyncio.wait_for(slow, PATIENCE)).release()


async def test_the_versions_of_one_name_leave_threads_to_others() -> None:
    async with bench(threads=2, bounds=ManagerBounds(aside_seconds=1e6)) as it:
        versions = [ModelId(f"name@{number}") for number in range(4)]
        for number, version in enumerate(versions):
            it.source.files[version] = fingerprint_of(100 + number)
        it.source.busy |= {fingerprint_of(100 + number) for number in range(4)}
        slow = [asyncio.create_task(it.manager.acquire(version)) for version in versions]
        assert await it.mark(B) == 2
        it.source.busy.clear()
        for task in slow:
            (await asyncio.wait_for(task, PATIENCE)).release()


async def test_closing_ends_a_load_of_endless_work() -> None:
    endless = ManagerBounds(quick_processor_seconds=1e6, processor_seconds=1e6)
    async with bench(bounds=endless) as it:
        it.source.busy.add(fingerprint_of(1))
        caller = asyncio.create_task(it.manager.acquire(A))
        await asyncio.sleep(0.05)
    with pytest.raises(Exception, match="shutting down"):
        await caller
    for thread in threading.enumerate():
        if thread.name.startswith("load"):
            thread.join(PATIENCE)
            assert not thread.is_alive()
