from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from frontend.routing.catalog import Catalog
from frontend.routing.remembered import BOUNDS, MemoryBounds
from serving.call.load_slots import SlotBounds
from serving.domain.errors import (
    InvalidManifest,
    ModelIncomplete,
    ModelNotFound,
    ServingError,
    VolumeUnavailable,
)
from serving.domain.model_id import ModelId
from serving.volume.freshness.comparison import ThreadComparison
from serving.volume.model_store import Fingerprint
from serving.volume.unknown_models import UnknownBounds
from tests.builders import PATIENCE, a_turn, happened, publish
from tests.fakes.clock import FakeClock
from tests.fakes.model_store import FakeModelStore

A = ModelId("a")
NEVER = 1e9


@asynccontextmanager
async def bench(
    root: Path,
    freshness_seconds: float = NEVER,
    bounds: MemoryBounds = BOUNDS,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[tuple[Catalog, FakeModelStore]]:
    volume = FakeModelStore(root)
    catalog = Catalog(
        volume,
        threads=2,
        freshness_seconds=freshness_seconds,
        comparison=ThreadComparison(),
        bounds=bounds,
        clock=clock,
    )
    try:
        yield catalog, volume
    finally:
        volume.look_gate.open()
        await catalog.close()


async def refusal_of(catalog: Catalog, name: ModelId = A) -> ServingError:
    with pytest.raises(ServingError) as caught:
        await catalog.manifest(name)
    return caught.value


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_a_manifest_is_read_once_and_not_looked_at_while_fresh(tmp_path: Path) -> None:
    publish(tmp_path, "a", ModelVersion="1")
    async with bench(tmp_path) as (catalog, volume):
        for _ in range(5):
            assert (await catalog.manifest(A)).model_version == "1"
        publish(tmp_path, "a", ModelVersion="2")
        assert (await catalog.manifest(A)).model_version == "1"
        assert (volume.looks, volume.reads) == ({A: 1}, {A: 1})


async def test_a_manifest_is_read_again_only_when_its_file_changed(tmp_path: Path) -> None:
    publish(tmp_path, "a", ModelVersion="1")
    async with bench(tmp_path, freshness_seconds=0.0) as (catalog, volume):
        for _ in range(5):
            assert (await catalog.manifest(A)).model_version == "1"
        assert volume.reads == {A: 1}
        publish(tmp_path, "a", ModelVersion="2")
        assert (await catalog.manifest(A)).model_version == "2"
        assert volume.reads == {A: 2}


async def test_however_many_ask_a_manifest_is_read_once(tmp_path: Path) -> None:
    publish(tmp_path, "a")
    async with bench(tmp_path, freshness_seconds=0.0) as (catalog, volume):
        volume.look_gate.shut()
        early = [asyncio.create_task(catalog.manifest(A)) for _ in range(50)]
        await happened(volume.look_gate.reached)
        late = [asyncio.create_task(catalog.manifest(A)) for _ in range(50)]
        await a_turn()
        volume.look_gate.open()
        manifests = await asyncio.gather(*early, *late)
        assert len({id(manifest) for manifest in manifests}) == 1
        assert (volume.looks, volume.reads) == ({A: 1}, {A: 1})


@pytest.mark.parametrize("count", [3, 20])
async def test_manifests_that_hang_in_the_volume_hold_up_no_other(tmp_path: Path, count: int) -> None:
    names = [ModelId(f"hangs-{number}") for number in range(count)]
    for name in (*names, "a"):
        publish(tmp_path, name)
    bounds = MemoryBounds(slots=SlotBounds(aside_seconds=0.001, hang_seconds=0.05))
    async with bench(tmp_path, bounds=bounds) as (catalog, volume):
        released = threading.Event()
        look = volume.fingerprint

        def hanging(model_id: ModelId) -> Fingerprint:
            assert model_id == A or released.wait(PATIENCE)
            return look(model_id)

        volume.fingerprint = hanging  # type: ignore[method-assign]
        hang = [asyncio.create_task(catalog.manifest(name)) for name in names]
        await a_turn()
        await asyncio.wait_for(catalog.manifest(A), PATIENCE / 2)
        assert not any(task.done() for task in hang)
        released.set()
        await asyncio.wait_for(asyncio.gather(*hang), PATIENCE)


async def test_an_unknown_model_is_remembered_for_a_second_without_another_look(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with bench(tmp_path, clock=clock) as (catalog, volume):
        for _ in range(3):
            assert isinstance(await refusal_of(catalog), ModelNotFound)
        publish(tmp_path, "a")
        clock.now = 0.99
        assert isinstance(await refusal_of(catalog), ModelNotFound)
        assert volume.looks == {A: 1}
        clock.now = 1.0
        assert (await catalog.manifest(A)).algorithm == "intent-classification"


async def test_unknown_models_are_remembered_in_bounded_memory(tmp_path: Path) -> None:
    names = [ModelId(f"unknown-{number}") for number in range(30)]
    async with bench(tmp_path, bounds=MemoryBounds(unknown=UnknownBounds(NEVER, 10))) as (catalog, volume):
        for name in (*names, *names[-10:]):
            assert isinstance(await refusal_of(catalog, name), ModelNotFound)
        assert volume.looks == Counter(names), "the last ten are remembered"
        for name in reversed(names[:-10]):
            await refusal_of(catalog, name)
        assert volume.looks == Counter([*names, *names[:-10]]), "the others are forgotten"


async def test_a_model_without_a_manifest_is_served_as_soon_as_it_has_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    async with bench(tmp_path) as (catalog, _):
        for _ in range(2):
            refusal = await refusal_of(catalog)
            assert isinstance(refusal, ModelIncomplete)
            assert refusal.code.name == "FAILED_PRECONDITION"
        publish(tmp_path, "a")
        assert (await catalog.manifest(A)).labels == ("no", "yes")


async def test_a_manifest_that_cannot_be_understood_is_told_and_read_again_when_it_is_mended(tmp_path: Path) -> None:
    publish(tmp_path, "a", Algorithm=7)
    async with bench(tmp_path) as (catalog, _):
        assert isinstance(await refusal_of(catalog), InvalidManifest)
        publish(tmp_path, "a")
        assert (await catalog.manifest(A)).algorithm == "intent-classification"


async def test_a_manifest_that_became_bad_stays_in_force_until_the_model_is_gone(
    tmp_path: Path, clock: FakeClock
) -> None:
    folder = publish(tmp_path, "a")
    async with bench(tmp_path, clock=clock, freshness_seconds=0.0) as (catalog, _):
        await catalog.manifest(A)
        publish(tmp_path, "a", Algorithm=7)
        assert (await catalog.manifest(A)).algorithm != "7"
        (folder / "manifest.json").unlink()
        assert (await catalog.manifest(A)).algorithm != "7"
        folder.rename(tmp_path / "b")
        assert isinstance(await refusal_of(catalog), ModelNotFound)


async def test_a_volume_that_fails_leaves_known_manifests_in_force(tmp_path: Path) -> None:
    publish(tmp_path, "a", ModelVersion="1")
    async with bench(tmp_path, freshness_seconds=0.0) as (catalog, volume):
        await catalog.manifest(A)
        volume.failure = VolumeUnavailable("away")
        publish(tmp_path, "a", ModelVersion="2")
        assert (await catalog.manifest(A)).model_version == "1"
        assert isinstance(await refusal_of(catalog, ModelId("b")), VolumeUnavailable)
        volume.failure = None
        assert (await catalog.manifest(A)).model_version == "2"
        # A failure of the volume is not remembered as an unknown model.
        publish(tmp_path, "b")
        assert (await catalog.manifest(ModelId("b"))).classes


async def test_a_caller_that_leaves_does_not_take_the_answer_from_the_others(tmp_path: Path) -> None:
    publish(tmp_path, "a")
    async with bench(tmp_path) as (catalog, volume):
        volume.look_gate.shut()
        leaving, staying = (asyncio.create_task(catalog.manifest(A)) for _ in range(2))
        await happened(volume.look_gate.reached)
        leaving.cancel()
        await asyncio.wait([leaving], timeout=PATIENCE)
        assert leaving.cancelled()
        volume.look_gate.open()
        assert (await staying).algorithm == "intent-classification"
        assert volume.looks == {A: 1}


async def test_every_caller_gets_an_exception_of_its_own(tmp_path: Path) -> None:
    async with bench(tmp_path) as (catalog, _):
        refusals = await asyncio.gather(*(catalog.manifest(A) for _ in range(20)), return_exceptions=True)
        assert {type(refusal) for refusal in refusals} == {ModelNotFound}
        assert len({id(refusal) for refusal in refusals}) == 20


async def test_a_bug_in_the_store_is_not_hidden_and_not_remembered(tmp_path: Path) -> None:
    publish(tmp_path, "a")
    async with bench(tmp_path) as (catalog, volume):
        volume.failure = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            await catalog.manifest(A)
        volume.failure = None
        assert (await catalog.manifest(A)).classes


async def test_closing_leaves_nobody_waiting(tmp_path: Path) -> None:
    publish(tmp_path, "a")
    async with bench(tmp_path) as (catalog, volume):
        volume.look_gate.shut()
        waiting = asyncio.create_task(catalog.manifest(A))
        await happened(volume.look_gate.reached)
        threading.Timer(0.05, volume.look_gate.open).start()
        await catalog.close()
        done, _ = await asyncio.wait([waiting], timeout=PATIENCE)
        assert done


async def test_manifests_are_remembered_in_bounded_memory_the_latest_first(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        publish(tmp_path, name, Notes="x" * 1000)
    names = [ModelId(name) for name in ("a", "b", "c", "c", "b", "a")]
    async with bench(tmp_path, bounds=MemoryBounds(most_bytes=2800)) as (catalog, volume):
        for name in names:
            await catalog.manifest(name)
        assert volume.reads == {"a": 2, "b": 1, "c": 1}, "two of the three fit"
    async with bench(tmp_path, bounds=MemoryBounds(most_bytes=10)) as (catalog, volume):
        for _ in range(2):
            await catalog.manifest(A)
        assert volume.reads == {A: 1}, "one manifest is remembered however large it is"
