"""Triton's model repository on the frontend: the index of models, and loading and unloading them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from frontend.routing.catalog import Catalog
from serving.domain.errors import ModelIncomplete, ModelNotFound, OutOfCapacity, ServingError, VolumeUnavailable
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.stubs import open_inference_pb2 as pb
from serving.volume.model_store import ModelStore
from tests.builders import PATIENCE, happened, publish
from tests.fakes.backend import FakeBackend
from tests.frontend.open_inference.running import Caller, calling, typed
from tests.serving.refusals import assert_fit_for_callers

Listed = tuple[str, str, str]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish(tmp_path, "model", ModelVersion="1.0")
    publish(tmp_path, "unnumbered")
    publish(tmp_path, "foreign", Algorithm="image-segmentation", ModelVersion="3")
    publish(tmp_path, "damaged")
    (tmp_path / "damaged" / "manifest.json").write_text("{")
    (tmp_path / "empty").mkdir()
    return tmp_path


async def index(caller: Caller, **fields: Any) -> list[Listed]:
    answer = await caller.stub.RepositoryIndex(pb.RepositoryIndexRequest(**fields), timeout=PATIENCE)
    for model in answer.models:
        if model.reason:
            assert_fit_for_callers(ServingError(model.reason))
    return [(model.name, model.version, model.state) for model in answer.models]


async def test_the_index_tells_all_models_and_which_are_ready(models: Path) -> None:
    engine = FakeBackend()
    async with calling(models, engine) as caller:
        assert await index(caller) == [
            ("damaged", "", "UNAVAILABLE"),
            ("foreign", "3", "UNAVAILABLE"),
            ("model", "1.0", "READY"),
            ("unnumbered", "1", "READY"),
        ]
        assert await index(caller, ready=True) == [("model", "1.0", "READY"), ("unnumbered", "1", "READY")]
    assert engine.batches == [], "nothing is loaded"


async def test_the_index_tells_why_a_model_is_not_ready(models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        answer = await caller.stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=PATIENCE)

    reasons = {model.name: model.reason for model in answer.models}
    assert "manifest.json" in reasons["damaged"]
    assert "no engine" in reasons["foreign"]
    assert reasons["model"] == reasons["unnumbered"] == ""


async def test_the_index_follows_the_volume(models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        await index(caller)
        publish(models, "another", ModelVersion="7")
        assert ("another", "7", "READY") in await index(caller)


async def test_the_index_of_many_models_tells_each_once(tmp_path: Path) -> None:
    names = [f"model-{number:03}" for number in range(300)]
    for name in names:
        publish(tmp_path, name, files={})
    async with calling(tmp_path, FakeBackend(), freshness_seconds=60.0) as caller:
        assert await index(caller) == [(name, "1", "READY") for name in names]
        assert len(await index(caller)) == 300


async def test_a_volume_that_cannot_be_listed_is_unavailable(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: object) -> None:
        raise VolumeUnavailable("the model volume cannot be listed at the moment; try again")

    monkeypatch.setattr(ModelStore, "names", failing)
    async with calling(models, FakeBackend()) as caller:
        code, _ = await caller.refusal("RepositoryIndex", pb.RepositoryIndexRequest())

    assert code is StatusCode.UNAVAILABLE


async def test_while_the_volume_hangs_the_index_is_late_and_answers_go_on(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, go_on = threading.Event(), threading.Event()

    def hanging(_: object) -> list[str]:
        listing.set()
        go_on.wait(PATIENCE)
        return []

    monkeypatch.setattr(ModelStore, "names", hanging)
    async with calling(models, FakeBackend()) as caller:
        try:
            late = [caller.stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=0.2) for _ in range(20)]
            await happened(listing)
            assert (await caller.infer(typed("x"))).outputs[0].contents.bytes_contents == [b"x"]
            for call in late:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call
                assert refused.value.code() is StatusCode.DEADLINE_EXCEEDED
        finally:
            go_on.set()
        assert await asyncio.wait_for(index(caller), PATIENCE) == []


@pytest.mark.parametrize(
    "asked",
    [pb.RepositoryModelLoadRequest(model_name="model"), pb.RepositoryModelLoadRequest(repository_name="model")],
    ids=["Triton", "KServe"],
)
async def test_a_model_is_loaded_by_its_engine(asked: pb.RepositoryModelLoadRequest, models: Path) -> None:
    engine = FakeBackend()
    async with calling(models, engine) as caller:
        answer = await caller.stub.RepositoryModelLoad(asked, timeout=PATIENCE)

    assert (answer.model_name, answer.is_loaded) == ("model", True)
    assert engine.loaded == ["model"]


@pytest.mark.parametrize(
    "asked",
    [pb.RepositoryModelUnloadRequest(model_name="model"), pb.RepositoryModelUnloadRequest(repository_name="model")],
    ids=["Triton", "KServe"],
)
async def test_a_model_is_unloaded_by_its_engine(asked: pb.RepositoryModelUnloadRequest, models: Path) -> None:
    engine = FakeBackend()
    async with calling(models, engine) as caller:
        answer = await caller.stub.RepositoryModelUnload(asked, timeout=PATIENCE)

    assert (answer.model_name, answer.is_unloaded) == ("model", True)
    assert engine.unloaded == ["model"]


async def test_the_name_of_the_model_counts_where_a_repository_is_named_too(models: Path) -> None:
    engine = FakeBackend()
    async with calling(models, engine) as caller:
        request = pb.RepositoryModelUnloadRequest(repository_name="models", model_name="model")
        await caller.stub.RepositoryModelUnload(request, timeout=PATIENCE)

    assert engine.unloaded == ["model"]


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("unknown", StatusCode.NOT_FOUND),
        ("", StatusCode.NOT_FOUND),
        ("../model", StatusCode.NOT_FOUND),
        ("foreign", StatusCode.FAILED_PRECONDITION),
        ("empty", StatusCode.FAILED_PRECONDITION),
        ("damaged", StatusCode.FAILED_PRECONDITION),
    ],
)
async def test_what_cannot_be_asked_can_neither_be_loaded_nor_unloaded(
    method: str, name: str, code: StatusCode, models: Path
) -> None:
    engine = FakeBackend()
    async with calling(models, engine) as caller:
        found, message = await caller.refusal(method, getattr(pb, f"{method}Request")(model_name=name))

    assert found is code
    assert "runId" not in message
    assert_fit_for_callers(ServingError(message))
    assert (engine.batches, engine.unloaded) == ([], [])


@pytest.mark.parametrize(
    "error",
    [OutOfCapacity("full"), ModelIncomplete("model.pth of the model is missing; finish its upload")],
    ids=lambda error: type(error).__name__,
)
async def test_why_a_model_cannot_be_loaded_is_told(error: ServingError, models: Path) -> None:
    async with calling(models, FakeBackend(failure=error)) as caller:
        told = await caller.refusal("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="model"))

    assert told == (error.code, str(error))


async def test_a_model_that_vanishes_meanwhile_is_told_in_words_of_the_protocol(models: Path) -> None:
    engine = FakeBackend(failure=ModelNotFound("no model has this runId"))
    async with calling(models, engine) as caller:
        _, message = await caller.refusal("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="model"))
        code, of_batch = await caller.refusal("ModelInfer", typed("x", "y"))

    assert "runId" not in message
    assert (code, "runId" in of_batch) == (StatusCode.NOT_FOUND, False)


@pytest.mark.parametrize("name", ["config", "file:1/model.pth"])
async def test_a_model_is_not_loaded_with_other_contents_than_it_was_published_with(name: str, models: Path) -> None:
    request = pb.RepositoryModelLoadRequest(model_name="model")
    request.parameters[name].string_param = "{}"
    async with calling(models, FakeBackend()) as caller:
        code, message = await caller.refusal("RepositoryModelLoad", request)

    assert (code, "published" in message) == (StatusCode.INVALID_ARGUMENT, True)


async def test_parameters_of_unloading_are_ignored(models: Path) -> None:
    request = pb.RepositoryModelUnloadRequest(model_name="model")
    request.parameters["unload_dependents"].bool_param = True
    async with calling(models, FakeBackend()) as caller:
        assert (await caller.stub.RepositoryModelUnload(request, timeout=PATIENCE)).is_unloaded


async def test_however_many_ask_for_the_index_a_few_manifests_are_looked_up_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        publish(tmp_path, f"model-{number}", files={})
    looked_up = Catalog.manifest
    at_once: list[int] = []
    under_way = 0

    async def counted(catalog: Catalog, model: ModelId) -> Manifest:
        nonlocal under_way
        under_way += 1
        at_once.append(under_way)
        try:
            return await looked_up(catalog, model)
        finally:
            under_way -= 1

    monkeypatch.setattr(Catalog, "manifest", counted)
    async with calling(tmp_path, FakeBackend()) as caller:
        assert [len(models) for models in await asyncio.gather(*(index(caller) for _ in range(5)))] == [40] * 5

    assert len(at_once) == 200
    assert max(at_once) <= 16
