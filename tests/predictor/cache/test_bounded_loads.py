from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from predictor.cache.model_manager import ManagerBounds
from serving.call.load_slots import SlotBounds
from serving.domain.errors import (
    LoadTooSlow,
    ModelTooLarge,
    ModelUnusable,
    OutOfCapacity,
    TooManyLoads,
    VolumeUnavailable,
)
from serving.domain.model_id import ModelId
from serving.volume.model_store import Fingerprint
from tests.builders import PATIENCE, fingerprint_of
from tests.fakes.model_source import FakeModel
from tests.predictor.cache.test_model_manager import A, B, Bench, C, bench, refusal_of, settled

SLOW = ManagerBounds(quick_processor_seconds=0.02, processor_seconds=0.05, slots=SlotBounds(aside_seconds=1e6))


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
    endless = ManagerBounds(quick_processor_seconds=0.02, processor_seconds=1e6, slots=SlotBounds(aside_seconds=1e6))
    async with bench(bounds=endless, threads=1) as it:
        it.source.busy |= {fingerprint_of(1), fingerprint_of(2)}
        slow = [asyncio.create_task(it.manager.acquire(name)) for name in (A, B)]
        # Both are beyond their share of the only quick thread, however many there are; each was tried there once.
        assert await it.mark(C) == 3
        assert not any(task.done() for task in slow)
        it.source.busy.clear()
        for task in slow:
            (await asyncio.wait_for(task, PATIENCE)).release()


class _Hanging:
    """Makes the source hang for some models, in their loads or in the looks at their files, until the end."""

    def __init__(self, it: Bench, *names: ModelId, looks: bool = False) -> None:
        self.names = set(names)
        self._hangs = threading.Semaphore(0)
        self._released = threading.Event()
        source = it.source
        load, look = source.load, source.fingerprint

        def hanging_load(name: ModelId, *rest: Any, **keys: Any) -> FakeModel:
            self._pass(name)
            return load(name, *rest, **keys)

        def hanging_look(model_id: ModelId) -> Fingerprint:
            self._pass(model_id)
            return look(model_id)

        if looks:
            source.fingerprint = hanging_look  # type: ignore[method-assign]
        else:
            source.load = hanging_load  # type: ignore[method-assign,assignment]

    def _pass(self, name: ModelId) -> None:
        if name in self.names:
            self._hangs.release()
            assert self._released.wait(PATIENCE)

    async def reached(self, count: int) -> None:
        """Wait until this many further loads hang."""
        for _ in range(count):
            assert await asyncio.to_thread(self._hangs.acquire, timeout=PATIENCE)

    def release(self) -> None:
        self._released.set()


def named(it: Bench, *texts: str) -> list[ModelId]:
    """Add models to the source."""
    names = [ModelId(text) for text in texts]
    for number, name in enumerate(names):
        it.source.files[name] = fingerprint_of(100 + number)
    return names


@pytest.mark.parametrize("looks", [False, True], ids=["loads", "looks"])
@pytest.mark.parametrize("count", [1, 3, 16])
async def test_loads_that_hang_in_the_volume_hold_up_no_other(count: int, looks: bool) -> None:
    async with bench(bounds=ManagerBounds(slots=SlotBounds(aside_seconds=0.001)), threads=1) as it:
        names = named(it, *(f"hangs-{number}" for number in range(count)))
        hanging = _Hanging(it, *names, looks=looks)
        slow = [asyncio.create_task(it.manager.acquire(name)) for name in names]
        await hanging.reached(count)
        assert [await it.mark(name) for name in (A, B, C)] == [1, 2, 3]
        assert not any(task.done() for task in slow)
        hanging.release()
        for task in slow:
            (await asyncio.wait_for(task, PATIENCE)).release()


@pytest.mark.parametrize("looks", [False, True], ids=["loads", "looks"])
async def test_beyond_the_slow_slots_loads_that_hang_are_refused_and_the_others_go_on(
    looks: bool, events: list[Any]
) -> None:
    bounds = ManagerBounds(slots=SlotBounds(aside_seconds=0.001, slow=2, hang_seconds=0.05))
    async with bench(bounds=bounds, threads=1) as it:
        names = named(it, *(f"hangs-{number}" for number in range(8)))
        hanging = _Hanging(it, *names, looks=looks)
        slow = [asyncio.create_task(it.manager.acquire(name)) for name in names]
        assert [await asyncio.wait_for(it.mark(name), PATIENCE) for name in (A, B, C)] == [1, 2, 3]
        await hanging.reached(len(names))
        refused = [task for task in slow if task.done()]
        assert len(refused) >= 4
        for task in refused:
            assert isinstance(task.exception(), VolumeUnavailable)
        at_once = await refusal_of(it, names[slow.index(refused[0])])
        assert isinstance(at_once, VolumeUnavailable), "no further caller waits for a load that hangs"
        assert it.source.loads[names[0]] + it.source.looks[names[0]] <= 1, "no second thread hangs for the model"
        assert {event["model"] for event in events if event["event"] == "load hangs"} >= {
            names[slow.index(task)] for task in refused
        }
        hanging.release()
        await settled(it)
        assert sorted([await it.mark(name) for name in names]) == list(range(100, 108)), "they arrived after all"


async def test_slow_loads_hold_up_neither_each_other_nor_the_rest() -> None:
    endless = ManagerBounds(quick_processor_seconds=0.02, processor_seconds=1e6, slots=SlotBounds(aside_seconds=1e6))
    async with bench(bounds=endless, threads=1) as it:
        names = named(it, "slow-1", "slow-2", "slow-3")
        it.source.busy |= {fingerprint_of(100), fingerprint_of(101), fingerprint_of(102)}
        slow = [asyncio.create_task(it.manager.acquire(name)) for name in names[:2]]
        last = asyncio.create_task(it.manager.acquire(names[2]))
        assert await it.mark(C) == 3
        # All three were tried in the quick slot before, and run beside each other as slow loads.
        it.source.busy.discard(fingerprint_of(102))
        (await asyncio.wait_for(last, PATIENCE)).release()
        assert not any(task.done() for task in slow)
        it.source.busy.clear()
        for task in slow:
            (await asyncio.wait_for(task, PATIENCE)).release()


@pytest.mark.parametrize("kind", ["hang", "slow", "hanging looks"])
async def test_many_slow_versions_of_one_name_hold_up_no_other_name(kind: str) -> None:
    bounds = ManagerBounds(
        quick_processor_seconds=0.02,
        processor_seconds=1e6,
        slots=SlotBounds(aside_seconds=0.001, slow=4, hang_seconds=1e6),
    )
    async with bench(bounds=bounds, threads=1, max_loads=20) as it:
        versions = named(it, *(f"name@{number}" for number in range(20)))
        hanging = _Hanging(it, *versions if kind != "slow" else (), looks=kind == "hanging looks")
        if kind == "slow":
            it.source.busy |= {fingerprint_of(100 + number) for number in range(20)}
        many = [asyncio.create_task(it.manager.acquire(version)) for version in versions]
        await asyncio.sleep(0.1)
        refused = [task for task in many if task.done()]
        assert len(refused) == 10, "one name's versions take half of the places of those that wait"
        for task in refused:
            assert isinstance(task.exception(), TooManyLoads)
        assert [await asyncio.wait_for(it.mark(name), PATIENCE) for name in (A, B, C)] == [1, 2, 3]
        hanging.release()
        it.source.busy.clear()
        for task in many:
            if task not in refused:
                (await asyncio.wait_for(task, PATIENCE)).release()
        await settled(it)
        assert await it.mark(versions[-1]) == 119, "and the places are free again"


async def test_the_workspace_of_slow_loads_but_one_is_reserved() -> None:
    bounds = ManagerBounds(
        quick_processor_seconds=0.02, processor_seconds=1e6, workspace=300, slots=SlotBounds(aside_seconds=1e6, slow=8)
    )
    async with bench(bounds=bounds, threads=1, max_bytes=1000) as it:
        names = named(it, *(f"slow-{number}" for number in range(5)))
        it.source.busy |= {fingerprint_of(100 + number) for number in range(5)}
        for number in range(5):
            it.source.steps[fingerprint_of(100 + number)] = [10]
        slow = [asyncio.create_task(it.manager.acquire(name)) for name in names]
        await asyncio.wait(slow, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        assert it.residents.bytes_held <= 1000
        await asyncio.sleep(0.1)
        assert it.residents.bytes_held == 10 + 3 * 310, "three of the four that run take a workspace from the budget"
        (refused,) = [task for task in slow if task.done()]
        assert isinstance(refused.exception(), OutOfCapacity)
        it.source.busy.clear()
        for task in slow:
            if task is not refused:
                (await asyncio.wait_for(task, PATIENCE)).release()
        assert it.residents.bytes_held == 40


async def test_a_load_that_builds_moves_aside_only_if_there_is_memory_for_its_workspace() -> None:
    bounds = ManagerBounds(
        quick_processor_seconds=1e6, processor_seconds=1e6, workspace=600, slots=SlotBounds(aside_seconds=0.3, slow=8)
    )
    async with bench(bounds=bounds, threads=1, max_bytes=1000) as it:
        names = named(it, *(f"slow-{number}" for number in range(4)))
        it.source.busy |= {fingerprint_of(100 + number) for number in range(4)}
        slow = [asyncio.create_task(it.manager.acquire(name)) for name in names]
        await asyncio.sleep(1.5)
        assert it.residents.bytes_held == 10 + 610 + 10, "the third stays in the quick slot, and the fourth waits"
        it.source.busy.clear()
        for task in slow:
            (await asyncio.wait_for(task, PATIENCE)).release()


async def test_the_versions_of_one_name_leave_threads_to_others() -> None:
    async with bench(threads=2, bounds=ManagerBounds(slots=SlotBounds(aside_seconds=1e6))) as it:
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
