"""Releases in memory: checked, learned, and in force while the volume fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from frontend.releases.bounds import ReleaseBounds
from frontend.releases.known import KnownReleases
from frontend.releases.rollouts import Rollouts
from frontend.releases.trials import Trials
from frontend.routing.remembered import BOUNDS, MemoryBounds
from serving.domain.errors import InvalidRelease, ModelNotFound, VolumeUnavailable
from serving.domain.model_id import ModelId
from serving.domain.releases.release import Canary, Release
from serving.volume.freshness.comparison import ThreadComparison
from tests.builders import PATIENCE, happened, publish
from tests.fakes.model_store import FakeModelStore
from tests.frontend.releases.running import NAME, NEVER, publish_versions, write_release


@asynccontextmanager
async def bench(
    root: Path,
    freshness_seconds: float = 0.0,
    release_freshness_seconds: float = 0.0,
    bounds: MemoryBounds = BOUNDS,
) -> AsyncIterator[tuple[KnownReleases, FakeModelStore]]:
    volume = FakeModelStore(root)
    known = KnownReleases(
        volume,
        threads=2,
        freshness_seconds=freshness_seconds,
        release_freshness_seconds=release_freshness_seconds,
        comparison=ThreadComparison(),
        bounds=bounds,
    )
    try:
        yield known, volume
    finally:
        volume.release_gate.open()
        await known.close()


def a_release(revision: int, stable: str = "v1") -> Release:
    return Release(revision=revision, stable=stable)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish_versions(tmp_path, "v1", "v2")
    return tmp_path


async def test_a_release_is_not_looked_at_while_fresh(models: Path) -> None:
    release = write_release(models, a_release(1))
    async with bench(models, NEVER, NEVER) as (known, volume):
        assert not known.has_none(NAME)
        for _ in range(5):
            assert await known.of(NAME) == release
        write_release(models, a_release(2))
        assert await known.of(NAME) == release
        assert volume.release_looks == {NAME: 1}


async def test_that_there_is_none_is_remembered_for_the_other_time(models: Path) -> None:
    async with bench(models, NEVER, 0.0) as (known, volume):
        for _ in range(5):
            assert await known.of(NAME) is None
            assert known.has_none(NAME)
        write_release(models, a_release(1))
        assert known.has_none(NAME)
        assert volume.release_looks == {NAME: 1}


async def test_the_first_release_of_a_name_is_found(models: Path) -> None:
    async with bench(models) as (known, _):
        assert await known.of(NAME) is None
        assert not known.has_none(NAME)
        release = write_release(models, a_release(1))
        assert await known.of(NAME) == release
        (models / NAME / "release.json").unlink()
        assert await known.of(NAME) is None


async def test_a_release_behind_the_frontends_back_is_found_by_a_look_beside_the_calls(models: Path) -> None:
    write_release(models, a_release(1))
    async with bench(models, NEVER, 0.02) as (known, _):
        assert (await known.of(NAME)) == a_release(1)
        release = write_release(models, a_release(2))
        async with asyncio.timeout(PATIENCE):
            while await known.of(NAME) != release:  # noqa: ASYNC110 - files send no notification
                await asyncio.sleep(0.005)


async def test_a_name_that_nothing_has_is_remembered_for_a_while(tmp_path: Path) -> None:
    async with bench(tmp_path) as (known, volume):
        for _ in range(3):
            with pytest.raises(ModelNotFound):
                await known.of(NAME)
        assert volume.release_looks == {NAME: 1}


@pytest.mark.parametrize("damage", ["{", '{"revision": 0, "stable": "v1"}', '{"revision": 2, "stable": "../v1"}'])
async def test_a_release_that_is_damaged_leaves_the_known_one_in_force(damage: str, models: Path) -> None:
    release = write_release(models, a_release(1))
    async with bench(models) as (known, _):
        await known.of(NAME)
        (models / NAME / "release.json").write_text(damage)
        assert await known.of(NAME) == release
        mended = write_release(models, a_release(2))
        assert await known.of(NAME) == mended
    (models / NAME / "release.json").write_text(damage)
    async with bench(models) as (known, _):
        with pytest.raises(InvalidRelease):
            await known.of(NAME)


async def test_a_volume_that_fails_leaves_what_is_known_in_force(models: Path) -> None:
    release = write_release(models, a_release(1))
    publish(models, "flat")
    flat, other = ModelId("flat"), ModelId("other")
    async with bench(models) as (known, volume):
        await known.of(NAME)
        await known.of(flat)
        volume.failure = VolumeUnavailable("away")
        write_release(models, a_release(2))
        assert await known.of(NAME) == release
        assert await known.of(flat) is None
        with pytest.raises(VolumeUnavailable):
            await known.of(other)


async def test_what_is_learned_is_in_force_at_once_and_held_against_the_file(models: Path) -> None:
    write_release(models, a_release(1))
    async with bench(models, NEVER, NEVER) as (known, _):
        await known.of(NAME)
        known.learn(NAME, a_release(2, "v2"))
        assert await known.of(NAME) == a_release(2, "v2")
        known.learn(NAME, None)
        assert known.has_none(NAME)
    async with bench(models) as (known, _):
        known.learn(NAME, a_release(2, "v2"))
        assert await known.of(NAME) == a_release(1), "the file says so"


async def test_an_older_revision_is_not_learned(models: Path) -> None:
    write_release(models, a_release(5))
    async with bench(models, NEVER, NEVER) as (known, _):
        await known.of(NAME)
        known.learn(NAME, a_release(4, "v2"))
        assert await known.of(NAME) == a_release(5)


@pytest.mark.parametrize("learned", [a_release(2, "v2"), None], ids=["released", "taken away"])
async def test_a_look_under_way_that_read_the_former_file_does_not_undo_what_was_learned(
    learned: Release | None, models: Path
) -> None:
    write_release(models, a_release(1))
    async with bench(models, NEVER, NEVER) as (known, volume):
        volume.release_gate.shut()
        looking = asyncio.create_task(known.of(NAME))
        await happened(volume.release_gate.reached)
        if learned is None:
            (models / NAME / "release.json").unlink()
        else:
            write_release(models, learned)
        known.learn(NAME, learned)
        assert await known.of(NAME) == learned
        volume.release_gate.open()
        assert await looking == learned
        assert await known.of(NAME) == learned


async def test_while_a_look_hangs_the_known_release_is_in_force(models: Path) -> None:
    release = write_release(models, a_release(1))
    async with bench(models) as (known, volume):
        await known.of(NAME)
        write_release(models, a_release(2))
        volume.release_gate.shut()
        assert await asyncio.wait_for(known.of(NAME), PATIENCE) == release


async def test_what_is_remembered_is_bounded(models: Path) -> None:
    names = [ModelId(f"name-{number}") for number in range(30)]
    for name in names:
        publish_versions(models, "v1", name=name)
        write_release(models, Release(revision=1, stable="v1", canary=Canary(version="v2")), name)
    async with bench(models, NEVER, NEVER, MemoryBounds(most_entries=10)) as (known, volume):
        trials = Trials()
        rolled_out = Rollouts(known, trials, ReleaseBounds(most_rollouts=5))
        for name in names:
            await rolled_out.of(name)
        assert [rollout.name for rollout in rolled_out.every()] == names[-5:]
        assert [name for name, _ in trials.of_all()] == names[-5:]
        for name in names[-10:]:
            await known.of(name)
        assert volume.release_looks == Counter(names), "the last ten are remembered"
        for name in reversed(names[:-10]):
            await known.of(name)
        assert volume.release_looks == Counter([*names, *names[:-10]]), "the others are forgotten"
