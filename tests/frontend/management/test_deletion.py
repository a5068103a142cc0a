"""Deletion of models: which engines are asked to release which models, and the effect of a failure."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc import StatusCode

from frontend.engines.backend import Removed
from frontend.management import deletion
from serving.domain.errors import Unavailable, VolumeUnavailable
from serving.stubs import model_service_pb2 as pb
from serving.volume.deleting import take_away
from tests.builders import PATIENCE, happened, publish
from tests.frontend.management.model_service import Running, model_service, versions


async def delete(running: Running, run_id: str) -> None:
    await running.stub.DeleteModel(pb.DeleteModelRequest(runId=run_id, force=True))


def known(removed: list[Removed]) -> list[tuple[str, str]]:
    """Return the models with the versions that their manifests name."""
    return [(model_id, "" if manifest is None else manifest.model_version) for model_id, manifest in removed]


async def test_the_engine_lets_go_of_a_model_in_a_folder_of_its_own(tmp_path: Path) -> None:
    publish(tmp_path, "flat", ModelVersion="7")
    async with model_service(tmp_path) as running:
        await delete(running, "flat")
        assert known(running.backend.forgotten) == [("flat", "7")]


async def test_the_engine_lets_go_of_one_version_alone(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1", "2")
    async with model_service(tmp_path) as running:
        await delete(running, "bot@2")
        assert [model_id for model_id, _ in running.backend.forgotten] == ["bot@2"]


async def test_the_engine_lets_go_of_every_version_of_a_name(tmp_path: Path) -> None:
    publish(tmp_path, "bot", ModelVersion="0")
    versions(tmp_path, "bot", "1", "2", ModelVersion="7")
    async with model_service(tmp_path) as running:
        await running.stub.Release(pb.ReleaseRequest(name="bot", version="2"))
        await delete(running, "bot")
        assert known(running.backend.forgotten) == [("bot", "0"), ("bot@1", "7"), ("bot@2", "7")]


async def test_every_engine_is_told_where_a_manifest_cannot_be_read(tmp_path: Path) -> None:
    versions(tmp_path, "bot", "1", "2")
    (tmp_path / "bot" / "1" / "manifest.json").write_text("nothing")
    (tmp_path / "bot" / "2" / "manifest.json").unlink()
    async with model_service(tmp_path) as running:
        await delete(running, "bot")
        assert running.backend.forgotten == [Removed("bot@1", None), Removed("bot@2", None)]  # type: ignore[arg-type]


async def test_an_engine_is_told_once_the_files_are_out_of_its_sight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, "flat")
    seen: list[bool] = []
    async with model_service(tmp_path) as running:

        async def look(*_: object) -> None:
            seen.append((tmp_path / "flat").exists())

        monkeypatch.setattr(running.backend, "forget", look)
        await delete(running, "flat")
    assert seen == [False]


async def test_a_model_stays_deleted_though_its_engine_does_not_let_go(tmp_path: Path) -> None:
    publish(tmp_path, "flat")
    with structlog.testing.capture_logs() as logs:
        async with model_service(tmp_path) as running:
            running.backend.failure = Unavailable("the predictor cannot be reached at the moment; try again")
            await delete(running, "flat")
            assert not (tmp_path / "flat").exists()
    (told,) = (line for line in logs if line["event"] == "deleted models not unloaded everywhere")
    assert (told["models"], told["log_level"]) == (["flat"], "warning")
    assert "cannot be reached" in told["reason"]


async def test_a_model_that_is_protected_stays_in_memory(tmp_path: Path) -> None:
    publish(tmp_path, "flat")
    async with model_service(tmp_path) as running:
        with pytest.raises(grpc.aio.AioRpcError):
            await running.stub.DeleteModel(pb.DeleteModelRequest(runId="flat"))
        assert running.backend.forgotten == []


async def test_the_engine_lets_go_though_files_are_left_on_the_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, "flat")

    def leave(_: Path) -> None:
        raise VolumeUnavailable("the model is deleted, but some of its files remain")

    monkeypatch.setattr(deletion, "remove_hidden", leave)
    async with model_service(tmp_path) as running:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await delete(running, "flat")
        assert failed.value.code() is StatusCode.UNAVAILABLE
        assert known(running.backend.forgotten) == [("flat", "")]


async def test_the_engine_lets_go_though_the_caller_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, "flat")
    gone, go_on = threading.Event(), threading.Event()

    def take_away_slowly(*arguments: Any, **keywords: Any) -> None:
        take_away(*arguments, **keywords)
        gone.set()
        assert go_on.wait(PATIENCE)

    monkeypatch.setattr(deletion, "take_away", take_away_slowly)
    async with model_service(tmp_path) as running:
        told = asyncio.Event()

        async def forget(*_: Any) -> None:
            told.set()

        monkeypatch.setattr(running.backend, "forget", forget)
        call = running.stub.DeleteModel(pb.DeleteModelRequest(runId="flat", force=True))
        asked = asyncio.ensure_future(call)
        await happened(gone)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        # This call is on the same connection: once it is answered, the service has seen the first call cancelled.
        await running.stub.ListModels(pb.ListModelsRequest())
        go_on.set()
        async with asyncio.timeout(PATIENCE):
            await told.wait()
