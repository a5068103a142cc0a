from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest
import structlog
from grpc import StatusCode

from predictor.cache.model_manager import ManagerBounds, ModelManager
from predictor.cache.residency import Lease, Resident, ResidentModels
from serving.call.deadline import Deadline
from serving.call.tasks import Tasks
from serving.domain.errors import (
    INTERNAL_MESSAGE,
    ChecksumMismatch,
    FilesChanged,
    FilesUnsettled,
    InvalidModelFile,
    MemoryInUse,
    ModelFolderUnavailable,
    ModelIncomplete,
    ModelNotFound,
    ModelPinned,
    ModelTooLarge,
    ModelUnusable,
    ServingError,
    Status,
    TooManyLoads,
    Unavailable,
    VolumeUnavailable,
    status_of,
)
from serving.domain.model_id import ModelId
from serving.volume.unknown_models import UnknownBounds
from tests.builders import PATIENCE, a_turn, fingerprint_of, happened
from tests.fakes.clock import FakeClock
from tests.fakes.gate import Gate
from tests.fakes.model_source import FakeModel, FakeSource

A, B, C = ModelId("a"), ModelId("b"), ModelId("c")
NEVER = 1e9


PATIENT: Final = ManagerBounds(refresh_patience_seconds=PATIENCE)
"""Bounds under which callers wait for a refresh as long as it takes, so that a busy machine changes no result."""
HASTY: Final = ManagerBounds(refresh_patience_seconds=0.01)


@dataclass
class Bench:
    source: FakeSource[FakeModel]
    residents: ResidentModels[FakeModel]
    manager: ModelManager[FakeModel]
    tasks: Tasks

    async def mark(self, name: ModelId) -> int:
        """Return the mark of the files that the served model was made from."""
        with await self.manager.acquire(name) as model:
            file = model.fingerprint.files[0]
            assert file is not None
            return file.inode

    def leases(self, *names: ModelId) -> list[int]:
        found = [self.residents.get(name) for name in names]
        return [resident.leases for resident in found if resident is not None]


@asynccontextmanager
async def bench(
    *,
    freshness_seconds: float = NEVER,
    max_bytes: int = 1000,
    max_loads: int = 1000,
    threads: int = 2,
    bounds: ManagerBounds = PATIENT,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Bench]:
    source = FakeSource(FakeModel)
    source.files = {A: fingerprint_of(1), B: fingerprint_of(2), C: fingerprint_of(3)}
    residents: ResidentModels[FakeModel] = ResidentModels(max_bytes=max_bytes, max_models=100)
    tasks = Tasks()
    manager = ModelManager(
        source,
        residents,
        threads=threads,
        max_loads=max_loads,
        freshness_seconds=freshness_seconds,
        bounds=bounds,
        tasks=tasks,
        clock=clock,
    )
    try:
        yield Bench(source, residents, manager, tasks)
    finally:
        source.look_gate.open()
        source.load_gate.open()
        await manager.close()


@pytest.fixture(autouse=True)
def events() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def refusal_of(bench: Bench, name: ModelId) -> ServingError:
    with pytest.raises(ServingError) as caught:
        await bench.manager.acquire(name)
    return caught.value


async def settled(bench: Bench) -> None:
    """Wait until no load and no refresh is under way."""
    while bench.tasks:
        await asyncio.wait(set(bench.tasks), timeout=PATIENCE)


def callers(bench: Bench, name: ModelId, count: int) -> list[asyncio.Task[Lease[FakeModel]]]:
    return [asyncio.create_task(bench.manager.acquire(name)) for _ in range(count)]


# One load, whatever the number of callers


@pytest.mark.parametrize("time", range(20))
async def test_256_cold_callers_of_a_model_cause_one_load(time: int) -> None:
    async with bench() as it:
        it.source.load_gate.shut()
        first = callers(it, A, 128)
        await happened(it.source.load_gate.reached)
        second = callers(it, A, 128)
        await a_turn()
        it.source.load_gate.open()
        leases = await asyncio.gather(*first, *second)
        assert it.source.loads == {A: 1}
        assert len({lease.model for lease in leases}) == 1
        assert it.leases(A) == [256]
        for lease in leases:
            lease.release()
        assert it.leases(A) == [0]


async def test_a_model_in_memory_is_not_loaded_again() -> None:
    async with bench() as it:
        assert [await it.mark(A), await it.mark(A), await it.mark(B)] == [1, 1, 2]
        assert it.source.loads == {A: 1, B: 1}
        assert it.source.looks == {A: 1, B: 1}


async def test_models_are_loaded_side_by_side() -> None:
    async with bench(threads=2) as it:
        both = threading.Barrier(2)
        it.source.load_gate.go_through = lambda: bool(both.wait(PATIENCE))  # type: ignore[assignment,method-assign]
        leases = await asyncio.gather(it.manager.acquire(A), it.manager.acquire(B))
        assert {lease.model.model_id for lease in leases} == {A, B}


async def test_a_failure_reaches_every_waiting_caller_as_an_exception_of_its_own() -> None:
    async with bench() as it:
        it.source.faults[fingerprint_of(1)] = InvalidModelFile("model.pth is damaged")
        it.source.load_gate.shut()
        tasks = callers(it, A, 50)
        await happened(it.source.load_gate.reached)
        it.source.load_gate.open()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(error) for error in errors} == {InvalidModelFile}
        assert {str(error) for error in errors} == {"model.pth is damaged"}
        assert len({id(error) for error in errors}) == 50
        assert it.source.loads == {A: 1}
        assert it.residents.bytes_held == 0


@pytest.mark.parametrize("where", ["fingerprint", "load", "estimate"])
async def test_a_bug_in_the_source_reaches_every_caller_as_a_status_and_the_next_one_is_served(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench() as it:
        with monkeypatch.context() as patch:

            def broken(*_: object) -> Any:
                raise ZeroDivisionError("secret")

            patch.setattr(it.source, where, broken)
            errors = await asyncio.gather(*callers(it, A, 20), return_exceptions=True)
        assert {status_of(error) for error in errors if isinstance(error, ServingError)} == {
            Status(StatusCode.INTERNAL, INTERNAL_MESSAGE)
        }
        assert len({id(error) for error in errors}) == 20
        assert it.residents.bytes_held == 0
        assert await it.mark(A) == 1


# Remembered failures


async def test_an_unknown_model_is_remembered_for_a_second_without_another_look(clock: FakeClock) -> None:
    async with bench(clock=clock) as it:
        unknown = ModelId("unknown")
        for _ in range(5):
            assert isinstance(await refusal_of(it, unknown), ModelNotFound)
        it.source.files[unknown] = fingerprint_of(9)
        clock.now = 0.99
        assert isinstance(await refusal_of(it, unknown), ModelNotFound)
        assert it.source.looks == {unknown: 1}
        clock.now = 1.0
        assert await it.mark(unknown) == 9
        assert it.source.looks == {unknown: 2}


async def test_unknown_models_are_remembered_in_bounded_memory() -> None:
    names = [ModelId(f"unknown-{number}") for number in range(50)]
    async with bench(bounds=ManagerBounds(unknown=UnknownBounds(NEVER, 10))) as it:
        for name in (*names, *names[-10:]):
            assert isinstance(await refusal_of(it, name), ModelNotFound)
        assert it.source.looks == Counter(names), "the last ten are remembered"
        for name in reversed(names[:-10]):
            await refusal_of(it, name)
        assert it.source.looks == Counter([*names, *names[:-10]]), "the others are forgotten"


async def test_files_that_are_no_model_are_tried_once_and_again_as_soon_as_they_change(clock: FakeClock) -> None:
    async with bench(clock=clock) as it:
        it.source.faults[fingerprint_of(1)] = ModelUnusable("bad")
        refusals = [await refusal_of(it, A) for _ in range(5)]
        assert {type(refusal) for refusal in refusals} == {ModelUnusable}
        assert len({id(refusal) for refusal in refusals}) == 5
        assert it.source.loads == {A: 1}
        it.source.files[A] = fingerprint_of(11)
        assert await it.mark(A) == 11


async def test_files_that_are_no_model_are_tried_again_after_ten_seconds(clock: FakeClock) -> None:
    async with bench(clock=clock) as it:
        it.source.faults[fingerprint_of(1)] = ModelUnusable("bad")
        await refusal_of(it, A)
        it.source.faults.clear()
        clock.now = 9.9
        assert isinstance(await refusal_of(it, A), ModelUnusable)
        clock.now = 10.0
        assert await it.mark(A) == 1


async def test_a_model_is_served_as_soon_as_its_upload_is_complete() -> None:
    async with bench() as it:
        it.source.files[A] = ModelIncomplete("the model has no vocab.pth yet")
        for _ in range(3):
            assert isinstance(await refusal_of(it, A), ModelIncomplete)
        it.source.files[A] = fingerprint_of(1)
        assert await it.mark(A) == 1


async def test_files_that_change_while_they_are_read_are_read_again() -> None:
    async with bench() as it:
        it.source.faults[fingerprint_of(1)] = FilesChanged("being published")
        it.source.load_gate.shut()
        caller = callers(it, A, 1)[0]
        await happened(it.source.load_gate.reached)
        it.source.files[A] = fingerprint_of(11)
        it.source.load_gate.open()
        with await caller as model:
            assert model.fingerprint == fingerprint_of(11)


async def test_files_that_never_stop_changing_are_told_and_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench() as it:
        with monkeypatch.context() as patch:
            marks = itertools.count(100)
            patch.setattr(it.source, "fingerprint", lambda _: fingerprint_of(next(marks)))
            it.source.faults = {fingerprint_of(mark): FilesChanged("being published") for mark in range(100, 200)}
            assert isinstance(await refusal_of(it, A), FilesChanged)
        assert 1 < it.source.loads[A] < 10
        it.source.files[A] = fingerprint_of(11)
        assert await it.mark(A) == 11
        assert it.residents.bytes_held == 10


async def test_files_of_another_copy_are_tried_once_and_again_as_soon_as_they_change() -> None:
    async with bench() as it:
        it.source.faults[fingerprint_of(1)] = ChecksumMismatch("another copy")
        for _ in range(3):
            assert isinstance(await refusal_of(it, A), ChecksumMismatch)
        assert it.source.loads == {A: 1}
        it.source.files[A] = fingerprint_of(11)
        assert await it.mark(A) == 11


async def test_models_are_loaded_ahead_and_one_that_cannot_be_keeps_nobody_waiting(events: list[Any]) -> None:
    async with bench() as it:
        await it.manager.preload([A, ModelId("unknown"), B, A])
        assert it.source.loads == {A: 1, B: 1}
        assert it.leases(A, B) == [0, 0]
        assert [event["model"] for event in events if event["event"] == "model not preloaded"] == ["unknown"]


async def test_what_happens_is_counted() -> None:
    async with bench(max_bytes=20) as it:
        for name in (A, A, B, C, ModelId("unknown")):
            with contextlib.suppress(ModelNotFound):
                await it.mark(name)
        it.source.faults[fingerprint_of(1)] = InvalidModelFile("bad")
        await refusal_of(it, A)
        counted = it.residents.statistics
        assert (counted.hits, counted.misses, counted.loads, counted.evictions) == (1, 5, 3, 2)
        assert counted.failures == {"invalid_model_file": 1}


@pytest.mark.parametrize("fault", [VolumeUnavailable("away"), MemoryInUse("busy")], ids=lambda e: type(e).__name__)
async def test_what_may_pass_by_itself_is_tried_at_every_call(fault: ServingError) -> None:
    async with bench() as it:
        it.source.faults[fingerprint_of(1)] = fault
        assert type(await refusal_of(it, A)) is type(fault)
        it.source.faults.clear()
        assert await it.mark(A) == 1


# Memory


async def test_a_model_that_is_too_large_when_loaded_is_refused_and_the_others_stay() -> None:
    async with bench(max_bytes=30) as it:
        await it.mark(B)
        it.source.sizes[fingerprint_of(1)] = 31
        assert isinstance(await refusal_of(it, A), ModelTooLarge)
        assert it.residents.bytes_held == 10
        assert it.residents.get(B) is not None


async def test_models_in_use_are_not_evicted_for_another() -> None:
    async with bench(max_bytes=20) as it:
        with await it.manager.acquire(A), await it.manager.acquire(B):
            assert isinstance(await refusal_of(it, C), MemoryInUse)
            assert it.residents.bytes_held == 20
        assert await it.mark(C) == 3


async def test_models_that_are_being_loaded_count_before_they_are_there() -> None:
    async with bench(max_bytes=20, threads=3) as it:
        it.source.load_gate.shut()
        loads = [*callers(it, A, 1), *callers(it, B, 1)]
        await happened(it.source.load_gate.reached)
        with pytest.raises(MemoryInUse):
            # Both loads hold their bytes before the first of them reaches its files.
            await asyncio.gather(*callers(it, C, 1), *loads)


async def test_the_bytes_of_a_load_that_failed_are_given_back() -> None:
    async with bench(max_bytes=10) as it:
        it.source.faults[fingerprint_of(1)] = ModelUnusable("bad")
        await refusal_of(it, A)
        assert it.residents.bytes_held == 0
        assert await it.mark(B) == 2


# Callers that leave


async def test_a_caller_that_leaves_does_not_take_the_load_from_the_others() -> None:
    async with bench() as it:
        it.source.load_gate.shut()
        tasks = callers(it, A, 10)
        await happened(it.source.load_gate.reached)
        for task in tasks[:9]:
            task.cancel()
        await asyncio.wait(tasks[:9], timeout=PATIENCE)
        assert all(task.cancelled() for task in tasks[:9])
        it.source.load_gate.open()
        lease = await tasks[9]
        assert it.source.loads == {A: 1}
        assert it.leases(A) == [1]
        lease.release()


async def test_the_load_goes_on_when_every_caller_has_left() -> None:
    async with bench() as it:
        it.source.load_gate.shut()
        task = callers(it, A, 1)[0]
        await happened(it.source.load_gate.reached)
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
        late = callers(it, A, 1)[0]
        await a_turn()
        it.source.load_gate.open()
        (await late).release()
        assert it.source.loads == {A: 1}
        assert it.leases(A) == [0]


async def test_a_lease_that_arrives_in_the_moment_its_caller_leaves_is_given_back() -> None:
    async with bench() as it:
        left: list[bool] = []

        async def first() -> None:
            lease = await it.manager.acquire(A)
            # The lease of the second task has arrived as well, and the task has not run since.
            assert it.leases(A) == [2]
            second.cancel()
            lease.release()

        async def leaving() -> None:
            try:
                await it.manager.acquire(A)
            except asyncio.CancelledError:
                left.append(True)
                raise

        leader = asyncio.create_task(first())
        second = asyncio.create_task(leaving())
        await leader
        await asyncio.wait([second], timeout=PATIENCE)
        assert second.cancelled()
        assert left == [True]
        assert it.leases(A) == [0]


async def test_a_caller_that_leaves_during_a_refresh_gives_its_lease_back() -> None:
    async with bench(freshness_seconds=0.0) as it:
        await it.mark(A)
        it.source.look_gate.shut()
        task = callers(it, A, 1)[0]
        await happened(it.source.look_gate.reached)
        assert it.leases(A) == [1]
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
        assert it.leases(A) == [0]


async def test_no_lease_and_no_byte_is_lost_in_a_thousand_acquisitions() -> None:
    async with bench(freshness_seconds=0.0, max_bytes=20) as it:
        bad, unknown = ModelId("bad"), ModelId("unknown")
        it.source.files[bad] = fingerprint_of(66)
        it.source.faults[fingerprint_of(66)] = ModelUnusable("bad")
        await refusal_of(it, bad)
        names = (A, B, C, bad, unknown)
        outcomes: Counter[str] = Counter()

        async def one(number: int) -> None:
            # There is room for two models, so three requested models evict and refuse each other all the time.
            task = asyncio.create_task(it.manager.acquire(names[number % 5]))
            await a_turn(number % 7)
            if number % 3 == 0:
                task.cancel()
            if number % 10 == 0:
                it.source.files[A] = fingerprint_of(1000 + number)
            try:
                lease = await task
            except asyncio.CancelledError:
                outcomes["cancelled"] += 1
            except ServingError as error:
                outcomes[type(error).__name__] += 1
            else:
                await a_turn(number % 3)
                lease.release()
                outcomes["ok"] += 1

        for start in range(0, 1000, 50):
            await asyncio.gather(*(one(number) for number in range(start, start + 50)))
        await settled(it)
        assert sum(outcomes.values()) == 1000
        assert min(outcomes[kind] for kind in ("ok", "cancelled", "ModelUnusable", "ModelNotFound")) > 10
        assert sum(it.leases(*names)) == 0
        assert it.residents.bytes_held == 10 * len(it.residents) <= 20
        assert it.manager.loads_waiting == 0


# Work that a load must not hold up


async def test_models_in_memory_answer_while_a_load_hangs() -> None:
    async with bench(threads=1) as it:
        await it.mark(A)
        it.source.load_gate.shut()
        stuck = callers(it, B, 1)[0]
        await happened(it.source.load_gate.reached)
        for _ in range(100):
            assert await it.mark(A) == 1
        assert not stuck.done()
        it.source.load_gate.open()
        (await stuck).release()


async def test_too_many_loads_are_refused_at_once_and_models_in_memory_are_not() -> None:
    async with bench(max_loads=2, threads=1) as it:
        await it.mark(A)
        it.source.load_gate.shut()
        waiting = [*callers(it, B, 3), *callers(it, C, 3)]
        await happened(it.source.load_gate.reached)
        assert isinstance(await refusal_of(it, ModelId("d")), TooManyLoads)
        assert await it.mark(A) == 1
        it.source.load_gate.open()
        for lease in await asyncio.gather(*waiting):
            lease.release()
        assert isinstance(await refusal_of(it, ModelId("d")), ModelNotFound)


# Models that change


async def test_files_are_not_looked_at_again_while_the_model_is_fresh() -> None:
    async with bench(freshness_seconds=NEVER) as it:
        await it.mark(A)
        it.source.files[A] = fingerprint_of(11)
        for _ in range(10):
            assert await it.mark(A) == 1
        assert it.source.looks == {A: 1}


async def test_replaced_files_are_served_and_a_request_under_way_ends_on_the_old_copy() -> None:
    async with bench(freshness_seconds=0.0) as it:
        old_lease = await it.manager.acquire(A)
        it.source.files[A] = fingerprint_of(11)
        assert await it.mark(A) == 11
        assert old_lease.model.fingerprint == fingerprint_of(1)
        assert it.residents.bytes_held == 20
        old_lease.release()
        assert it.residents.bytes_held == 10


async def test_a_replacement_is_loaded_once_however_many_ask_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(freshness_seconds=0.0) as it:
        await it.mark(A)
        it.source.files[A] = fingerprint_of(11)
        it.source.load_gate.shut()
        tasks = callers(it, A, 50)
        await happened(it.source.load_gate.reached)
        tasks += callers(it, A, 50)
        await a_turn()
        it.source.load_gate.open()
        for lease in await asyncio.gather(*tasks):
            assert lease.model.fingerprint == fingerprint_of(11)
            lease.release()
        assert it.source.loads == {A: 2}


async def test_a_bad_replacement_is_tried_once_and_the_old_copy_serves_on(events: list[Any]) -> None:
    async with bench(freshness_seconds=0.0) as it:
        await it.mark(A)
        it.source.faults[fingerprint_of(11)] = InvalidModelFile("bad")
        it.source.files[A] = fingerprint_of(11)
        for _ in range(5):
            assert await it.mark(A) == 1
        assert it.source.loads == {A: 2}
        refused = [event for event in events if event["event"] == "replacement refused; the loaded copy serves on"]
        assert [(event["model"], event["reason"], event["log_level"]) for event in refused] == [("a", "bad", "error")]
        assert it.residents.statistics.replacements_refused == 1
        it.source.files[A] = fingerprint_of(12)
        assert await it.mark(A) == 12
        assert it.residents.bytes_held == 10


async def test_a_replacement_that_finds_no_memory_is_tried_again() -> None:
    async with bench(freshness_seconds=0.0, max_bytes=20) as it:
        await it.mark(A)
        in_use = await it.manager.acquire(B)
        it.source.files[A] = fingerprint_of(11)
        assert await it.mark(A) == 1
        assert it.residents.statistics.replacements_refused == 0
        in_use.release()
        assert await it.mark(A) == 11


async def test_a_replacement_under_way_leaves_the_loaded_copy() -> None:
    async with bench(freshness_seconds=0.0) as it:
        await it.mark(A)
        it.source.files[A] = ModelIncomplete("being written")
        assert await it.mark(A) == 1
        it.source.files[A] = fingerprint_of(11)
        assert await it.mark(A) == 11


async def test_a_removed_model_is_gone_and_a_request_under_way_ends_on_it() -> None:
    async with bench(freshness_seconds=0.0) as it:
        lease = await it.manager.acquire(A)
        del it.source.files[A]
        assert isinstance(await refusal_of(it, A), ModelNotFound)
        assert lease.model.fingerprint == fingerprint_of(1)
        assert it.residents.bytes_held == 10
        lease.release()
        assert it.residents.bytes_held == 0


async def test_a_volume_that_fails_takes_no_loaded_model_away() -> None:
    async with bench(freshness_seconds=0.0) as it:
        await it.mark(A)
        it.source.files[A] = VolumeUnavailable("away")
        for _ in range(3):
            assert await it.mark(A) == 1
        it.source.files[A] = fingerprint_of(11)
        assert await it.mark(A) == 11


async def test_a_bug_while_refreshing_takes_no_loaded_model_away() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with bench(freshness_seconds=0.0, bounds=HASTY) as it:
        await it.mark(A)
        it.source.files[A] = ZeroDivisionError()
        assert await it.mark(A) == 1
        it.source.files[A] = fingerprint_of(11)
        # Callers are hasty here, so the first of them may come before the new copy.
        assert await it.mark(A) in (1, 11)
        while await it.mark(A) != 11:
            await settled(it)


@pytest.mark.parametrize("slow", ["look_gate", "load_gate"])
async def test_a_slow_refresh_keeps_callers_no_longer_than_their_patience_and_is_served_later(slow: str) -> None:
    async with bench(freshness_seconds=0.0, bounds=HASTY) as it:
        await it.mark(A)
        it.source.files[A] = fingerprint_of(11)
        gate: Gate = getattr(it.source, slow)
        gate.shut()
        for _ in range(3):
            # The manager answers although the gate stays shut.
            assert await it.mark(A) == 1
        await happened(gate.reached)
        gate.open()
        await settled(it)
        assert await it.mark(A) == 11
        assert it.source.loads == {A: 2}


async def test_the_old_copy_is_not_evicted_for_a_replacement_that_nobody_waits_for() -> None:
    async with bench(freshness_seconds=0.0, max_bytes=10, bounds=HASTY) as it:
        await it.mark(A)
        it.source.files[A] = fingerprint_of(11)
        it.source.faults[fingerprint_of(11)] = ModelUnusable("bad")
        it.source.look_gate.shut()
        assert await it.mark(A) == 1
        it.source.look_gate.open()
        await settled(it)
        assert it.leases(A) == [0]
        assert it.source.loads == {A: 1}


async def test_a_model_that_was_evicted_while_it_was_looked_at_does_not_come_back() -> None:
    async with bench(freshness_seconds=0.0, max_bytes=10, threads=2, bounds=HASTY) as it:
        await it.mark(A)
        it.source.files[A] = fingerprint_of(11)
        it.source.look_gate.shut()
        assert await it.mark(A) == 1
        await happened(it.source.look_gate.reached)
        other = callers(it, B, 1)[0]
        it.residents.discard(A)
        it.source.look_gate.open()
        (await other).release()
        await settled(it)
        assert it.source.loads == {A: 1, B: 1}
        assert it.residents.get(B) is not None


# The end


async def test_closing_ends_loads_and_leaves_nobody_waiting() -> None:
    source = FakeSource(FakeModel)
    source.files = {A: fingerprint_of(1), B: fingerprint_of(2)}
    residents: ResidentModels[FakeModel] = ResidentModels(max_bytes=1000, max_models=100)
    manager = ModelManager(source, residents, threads=1, max_loads=10, freshness_seconds=NEVER)
    source.load_gate.shut()
    tasks = [asyncio.create_task(manager.acquire(name)) for name in (A, B, A)]
    await happened(source.load_gate.reached)
    # A thread that reads a file cannot be stopped, and a hanging volume must not block the shutdown.
    await manager.close()
    source.load_gate.open()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [Unavailable] * 3
    assert source.loads == {A: 1}
    assert residents.bytes_held == 0


async def test_leases_stay_valid_when_the_manager_is_closed() -> None:
    async with bench() as it:
        lease = await it.manager.acquire(A)
        await it.manager.close()
        assert lease.model.model_id == A
        lease.release()


async def test_asking_a_closed_manager_is_answered() -> None:
    async with bench() as it:
        await it.manager.close()
        assert isinstance(await refusal_of(it, A), Unavailable)


# Models that are ready.


def ready(it: Bench, name: ModelId) -> int | None:
    """Return the mark of the files of the model that can answer at once, or ``None`` if no model can."""
    lease = it.manager.acquire_ready(name)
    if lease is None:
        return None
    with lease as model:
        file = model.fingerprint.files[0]
        assert file is not None
        return file.inode


async def becomes(look: Callable[[], int | None], wanted: int | None) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if look() == wanted:
                return
            await asyncio.sleep(0.001)


async def test_only_what_is_in_memory_is_ready() -> None:
    async with bench() as it:
        assert ready(it, A) is None
        await it.mark(A)
        assert ready(it, A) == 1
        assert it.source.looks[A] == 1
        assert it.residents.statistics.misses == 1


async def test_where_nothing_is_fresh_nothing_is_ready() -> None:
    async with bench(freshness_seconds=0.0) as it:
        await it.mark(A)
        assert [ready(it, A) for _ in range(10)] == [None] * 10


async def busy(it: Bench) -> Resident[FakeModel]:
    """Return model A, which is queried all the time."""
    await it.mark(A)
    assert [ready(it, A) for _ in range(5)] == [1] * 5
    resident = it.residents.get(A)
    assert resident is not None
    return resident


async def test_a_busy_model_answers_while_its_files_are_looked_at_and_a_change_is_served() -> None:
    async with bench(freshness_seconds=30.0) as it:
        resident = await busy(it)
        it.source.files[A] = fingerprint_of(7)
        it.source.look_gate.shut()
        resident.checked_at -= 31.0
        assert [ready(it, A) for _ in range(5)] == [1] * 5
        it.source.look_gate.open()
        await becomes(lambda: ready(it, A), 7)
        assert it.source.loads[A] == 2


async def test_files_that_were_not_looked_at_for_long_are_waited_for_even_when_the_model_is_busy() -> None:
    async with bench(freshness_seconds=30.0) as it:
        resident = await busy(it)
        resident.checked_at -= 61.0
        assert ready(it, A) is None


async def test_a_pinned_model_that_was_removed_is_gone_once_it_is_to_be_unloaded() -> None:
    source = FakeSource(FakeModel)
    source.files = {A: fingerprint_of(1)}
    residents: ResidentModels[FakeModel] = ResidentModels(max_bytes=1000, max_models=100, pinned=[A])
    tasks = Tasks()
    manager = ModelManager(source, residents, threads=1, max_loads=1, freshness_seconds=NEVER, tasks=tasks)
    (await manager.acquire(A)).release()
    for left in (1, 0):
        with pytest.raises(ModelPinned):
            manager.unload(A)
        await asyncio.gather(*tasks)
        assert len(residents) == left
        source.files.clear()
    await manager.close()


async def test_a_busy_model_that_was_removed_is_gone_once_it_was_looked_for() -> None:
    async with bench(freshness_seconds=30.0) as it:
        resident = await busy(it)
        del it.source.files[A]
        resident.checked_at -= 31.0
        await becomes(lambda: ready(it, A), None)
        with pytest.raises(ModelNotFound):
            await it.manager.acquire(A)


# Files that may still be arriving

SETTLE: Final = 0.05
RESTING: Final = dataclasses.replace(PATIENT, settle_seconds=SETTLE)


async def test_files_without_a_proof_are_loaded_once_they_have_been_at_rest() -> None:
    async with bench(bounds=RESTING) as it:
        it.source.unsealed = {fingerprint_of(1)}
        assert await it.mark(A) == 1
        assert it.source.loads == {A: 2}
        assert it.residents.statistics.failures == {}


async def test_files_that_change_while_they_rest_rest_again_and_all_callers_get_the_last_ones() -> None:
    async with bench(bounds=dataclasses.replace(RESTING, settle_seconds=0.3)) as it:
        it.source.unsealed = {fingerprint_of(1), fingerprint_of(2)}
        waiting = callers(it, A, 10)
        while not it.source.loads[A]:
            await a_turn()
        it.source.files[A] = fingerprint_of(2)
        leases = await asyncio.gather(*waiting)
        assert {lease.model.fingerprint for lease in leases} == {fingerprint_of(2)}
        assert it.source.loads == {A: 3}


async def test_a_proven_copy_needs_no_rest() -> None:
    async with bench(bounds=dataclasses.replace(PATIENT, settle_seconds=NEVER)) as it:
        assert await it.mark(A) == 1


async def test_a_copy_that_has_rested_is_loaded_again_at_once_after_its_eviction() -> None:
    async with bench(bounds=RESTING, max_bytes=10) as it:
        it.source.unsealed = {fingerprint_of(1)}
        await it.mark(A)
        await it.mark(B)
        assert it.residents.get(A) is None
        await it.mark(A)
        assert it.source.loads == {A: 3, B: 1}


async def test_callers_that_cannot_wait_for_the_rest_are_told_at_once_when_to_try_again() -> None:
    async with bench(bounds=dataclasses.replace(PATIENT, settle_seconds=60.0)) as it:
        it.source.unsealed = {fingerprint_of(1)}
        patient = asyncio.create_task(it.manager.acquire(A, Deadline.after(600.0)))
        hasty = [asyncio.create_task(it.manager.acquire(A, Deadline.after(30.0)))]
        await asyncio.wait_for(asyncio.wait(hasty), PATIENCE)
        hasty.append(asyncio.create_task(it.manager.acquire(A, Deadline.after(30.0))))
        await asyncio.wait_for(asyncio.wait(hasty), PATIENCE)
        for refused in hasty:
            error = refused.exception()
            assert isinstance(error, FilesUnsettled)
            assert status_of(error).code is StatusCode.UNAVAILABLE
            assert error.retry_after is not None
            assert 0.0 < error.retry_after <= 60.0
        assert not patient.done()
        patient.cancel()


async def test_files_that_never_come_to_rest_are_refused_after_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(bounds=dataclasses.replace(RESTING, settle_seconds=0.001, most_rests=3)) as it:
        marks = itertools.count(100)
        it.source.unsealed = {fingerprint_of(mark) for mark in range(100, 200)}
        monkeypatch.setattr(it.source, "fingerprint", lambda _: fingerprint_of(next(marks)))
        assert isinstance(await refusal_of(it, A), FilesUnsettled)
        assert it.source.loads == {A: 4}
        assert it.residents.statistics.failures == {"files_unsettled": 1}


async def test_models_wanted_at_the_start_are_waited_for_until_they_have_rested() -> None:
    async with bench(bounds=RESTING) as it:
        it.source.unsealed = {fingerprint_of(1)}
        await it.manager.preload([A])
        assert it.residents.get(A) is not None


async def test_a_replacement_without_a_proof_is_swapped_in_once_it_has_rested_and_nobody_need_ask_again() -> None:
    async with bench(freshness_seconds=0.0, bounds=RESTING) as it:
        await it.mark(A)
        it.source.unsealed = {fingerprint_of(7)}
        it.source.files[A] = fingerprint_of(7)
        await it.mark(A)
        await settled(it)
        resident = it.residents.get(A)
        assert resident is not None
        assert resident.fingerprint == fingerprint_of(7)
        assert it.residents.statistics.replacements_refused == 0


async def test_a_load_that_rests_ends_with_the_service() -> None:
    async with bench(bounds=dataclasses.replace(PATIENT, settle_seconds=60.0)) as it:
        it.source.unsealed = {fingerprint_of(1)}
        (waiting,) = callers(it, A, 1)
        while not it.source.loads[A]:
            await a_turn()
        await it.manager.close()
        with pytest.raises(Unavailable):
            await waiting


# A model folder that is gone


async def test_models_in_memory_outlive_the_folder_of_all_models_without_a_line_each(events: list[Any]) -> None:
    async with bench(freshness_seconds=0.0) as it:
        await it.mark(A)
        it.source.files[A] = ModelFolderUnavailable("gone")
        events.clear()
        assert await it.mark(A) == 1
        await settled(it)
        assert await it.mark(A) == 1
        assert events == []


async def test_a_look_at_a_volume_that_does_not_answer_counts_as_a_failure() -> None:
    async with bench() as it:
        it.source.files[A] = ModelFolderUnavailable("gone")
        await refusal_of(it, A)
        it.source.files[B] = VolumeUnavailable("down")
        await refusal_of(it, B)
        assert it.residents.statistics.failures == {"model_folder_unavailable": 1, "volume_unavailable": 1}
