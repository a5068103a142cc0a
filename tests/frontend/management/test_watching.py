from __future__ import annotations

import asyncio
import gc
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from frontend.management.volume import Volume
from frontend.management.watching import ModelWatch
from serving.call.identity import Identity, Right
from serving.domain.errors import OutOfCapacity, VolumeUnavailable
from serving.domain.management import ModelChange
from serving.domain.model_id import ModelId
from serving.stubs import model_service_pb2 as pb
from serving.volume.inventory import Inventory
from serving.volume.model_store import ModelStore
from tests.builders import PATIENCE, publish
from tests.frontend.management.model_service import model_service, versions
from tests.frontend.releases.running import write_release
from tests.serving.domain.releases.test_changes import of


def everybody(name: str) -> bool:
    del name
    return True


@pytest.fixture
async def volume(tmp_path: Path) -> AsyncIterator[Volume]:
    reading = Volume(Inventory(ModelStore(tmp_path)))
    yield reading
    reading.close()


def watch_of(root: Path, volume: Volume, **options: Any) -> ModelWatch:
    return ModelWatch(ModelStore(root), volume, **{"interval_seconds": 0.01, **options})


async def next_of(changes: Any) -> tuple[str, str]:
    async with asyncio.timeout(PATIENCE):
        change: ModelChange = await anext(changes)
    return change.kind, change.model_id


async def test_a_watch_begins_with_all_that_there_is(tmp_path: Path, volume: Volume) -> None:
    publish(tmp_path, "flat")
    versions(tmp_path, "bot", "1", "2")
    write_release(tmp_path, of("1"), "bot")
    changes = watch_of(tmp_path, volume).changes("", everybody, initial=True)
    assert [await next_of(changes) for _ in range(5)] == [
        ("added", "bot@1"),
        ("added", "bot@2"),
        ("released", "bot"),
        ("added", "flat"),
        ("synchronized", ""),
    ]
    await changes.aclose()


async def test_what_comes_changes_and_goes_is_told(tmp_path: Path, volume: Volume) -> None:
    changes = watch_of(tmp_path, volume).changes("", everybody, initial=True)
    assert await next_of(changes) == ("synchronized", "")
    publish(tmp_path, "flat")
    assert await next_of(changes) == ("added", "flat")
    publish(tmp_path, "flat", ModelVersion="2")
    assert await next_of(changes) == ("changed", "flat")
    versions(tmp_path, "bot", "1")
    assert await next_of(changes) == ("added", "bot@1")
    write_release(tmp_path, of("1"), "bot")
    assert await next_of(changes) == ("released", "bot")
    shutil.rmtree(tmp_path / "flat")
    while (change := await next_of(changes)) == ("changed", "flat"):
        pass
    assert change == ("removed", "flat")
    (tmp_path / "bot" / "release.json").unlink()
    assert await next_of(changes) == ("released", "bot")
    await changes.aclose()


async def test_a_watch_tells_what_is_asked_and_allowed(tmp_path: Path, volume: Volume) -> None:
    for name in ("bank-a", "bank-b", "travel"):
        publish(tmp_path, name)
    changes = watch_of(tmp_path, volume).changes("bank-", lambda name: name != "bank-b", initial=True)
    assert await next_of(changes) == ("added", "bank-a")
    assert await next_of(changes) == ("synchronized", "")
    publish(tmp_path, "bank-b", ModelVersion="2")
    publish(tmp_path, "travel", ModelVersion="2")
    publish(tmp_path, "bank-c")
    assert await next_of(changes) == ("added", "bank-c")
    await changes.aclose()


async def test_a_release_of_our_own_is_told_at_once_and_once(tmp_path: Path, volume: Volume) -> None:
    versions(tmp_path, "bot", "1", "2")
    write_release(tmp_path, of("1"), "bot")
    watch = watch_of(tmp_path, volume, interval_seconds=3600.0)
    changes = watch.changes("", everybody, initial=True)
    while await next_of(changes) != ("synchronized", ""):
        pass
    watch.released(ModelId("bot"), of("1", "2"))
    assert await next_of(changes) == ("released", "bot")
    # The file is seen later, and does not count as a change then.
    write_release(tmp_path, of("1", "2"), "bot")
    watch.look_now()
    publish(tmp_path, "flat")
    await asyncio.sleep(0)
    watch.look_now()
    assert await next_of(changes) == ("added", "flat")
    await changes.aclose()


async def test_nobody_looks_where_nobody_watches(
    tmp_path: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    folders = ModelStore.folders

    def counted(store: ModelStore, name: ModelId | None = None) -> list[ModelId]:
        nonlocal looks
        looks += 1
        return folders(store, name)

    monkeypatch.setattr(ModelStore, "folders", counted)
    watch = watch_of(tmp_path, volume)
    first, second = (watch.changes("", everybody, initial=True) for _ in range(2))
    assert await next_of(first) == await next_of(second) == ("synchronized", "")
    await first.aclose()
    publish(tmp_path, "flat")
    assert await next_of(second) == ("added", "flat")
    await second.aclose()
    await volume.reading(int)
    before = looks
    await asyncio.sleep(0.2)
    assert looks == before
    # A later watcher sees the models that exist when it starts.
    third = watch.changes("", everybody, initial=True)
    assert await next_of(third) == ("added", "flat")
    await third.aclose()


async def test_who_reads_too_slowly_is_told_so_and_harms_nobody(tmp_path: Path, volume: Volume) -> None:
    watch = watch_of(tmp_path, volume, most_unread=3)
    slow, quick = (watch.changes("", everybody, initial=True) for _ in range(2))
    assert await next_of(slow) == await next_of(quick) == ("synchronized", "")
    for number in range(5):
        publish(tmp_path, f"model-{number}")
        assert await next_of(quick) == ("added", f"model-{number}")
    with pytest.raises(OutOfCapacity, match="watch again"):
        await next_of(slow)
    await quick.aclose()


async def test_a_volume_that_cannot_be_looked_at_is_told_and_a_broken_name_is_left_out(
    tmp_path: Path, volume: Volume
) -> None:
    root = tmp_path / "later"
    changes = watch_of(root, volume).changes("", everybody, initial=True)
    with pytest.raises(VolumeUnavailable):
        await next_of(changes)
    publish(tmp_path, "flat")
    (tmp_path / "bot").mkdir()
    (tmp_path / "bot" / "release.json").write_text("{")
    changes = watch_of(tmp_path, volume).changes("", everybody, initial=True)
    assert await next_of(changes) == ("added", "flat")
    await changes.aclose()


async def test_the_service_tells_watchers_of_its_own_releases_and_deletions(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1", "2")
    async with model_service(tmp_path) as running:
        watch = running.stub.WatchModels(pb.WatchModelsRequest(initial=True), timeout=PATIENCE)
        kinds = [(await watch.read()).kind for _ in range(3)]
        assert kinds == [pb.ModelChange.ADDED, pb.ModelChange.ADDED, pb.ModelChange.SYNCHRONIZED]
        await running.stub.Release(pb.ReleaseRequest(name="bot", version="1"))
        told = await watch.read()
        assert (told.kind, told.runId, told.release.stable) == (pb.ModelChange.RELEASED, "bot", "1")
        await running.stub.DeleteModel(pb.DeleteModelRequest(runId="bot@2"))
        told = await watch.read()
        assert (told.kind, told.runId) == (pb.ModelChange.REMOVED, "bot@2")
        watch.cancel()


async def test_watchers_see_the_models_that_they_may_use(tmp_path: Path) -> None:
    publish(tmp_path, "bank")
    publish(tmp_path, "travel")
    async with model_service(tmp_path, Identity("bank", frozenset({Right.PREDICT}), ("bank",))) as running:
        watch = running.stub.WatchModels(pb.WatchModelsRequest(initial=True), timeout=PATIENCE)
        assert [(await watch.read()).runId for _ in range(2)] == ["bank", ""]
        watch.cancel()
    async with model_service(tmp_path, Identity("nobody", frozenset(), ("*",))) as running:
        watch = running.stub.WatchModels(pb.WatchModelsRequest(), timeout=PATIENCE)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await watch.read()
    assert failed.value.code() is StatusCode.PERMISSION_DENIED


class _VolumeLeft:
    """A volume that fails in the moment in which the only watcher leaves, which no real volume does on request."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Task[Any]] = []

    async def reading(self, *_: object) -> Any:
        asyncio.get_running_loop().call_soon(self.waiting.pop().cancel)
        raise VolumeUnavailable("the volume does not answer")


async def test_a_first_scan_that_fails_as_its_watcher_leaves_is_no_error_of_the_event_loop(tmp_path: Path) -> None:
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    volume: Any = _VolumeLeft()
    watch = watch_of(tmp_path, volume)
    volume.waiting.append(asyncio.create_task(next_of(watch.changes("", everybody, initial=True))))
    (waiting,) = volume.waiting
    await asyncio.wait({waiting}, timeout=PATIENCE)
    assert waiting.cancelled()
    del waiting, watch
    await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0)
    assert faults == []
