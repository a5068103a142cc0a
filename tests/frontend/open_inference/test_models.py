"""Readiness and descriptions of the frontend and its models in the Open Inference Protocol, over a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import json_format
from grpc import StatusCode

from serving.domain.errors import ServingError
from serving.stubs import open_inference_pb2 as pb
from serving.volume.open_folder import OpenFolder
from tests.builders import PATIENCE, publish
from tests.fakes.backend import FakeBackend
from tests.frontend.open_inference.running import CLASSES, LIMITS, calling
from tests.serving.refusals import assert_fit_for_callers


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish(tmp_path, "model", classes=CLASSES, ModelVersion="1.0")
    publish(tmp_path, "unnumbered", classes=CLASSES)
    publish(tmp_path, "foreign", Algorithm="image-segmentation", ModelVersion="3")
    (tmp_path / "empty").mkdir()
    return tmp_path


async def test_the_server_tells_what_it_is(models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        live = await caller.stub.ServerLive(pb.ServerLiveRequest(), timeout=PATIENCE)
        metadata = await caller.stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=PATIENCE)

    assert live.live
    assert (metadata.name, metadata.version) == ("intent-serving", "0.1.0")
    assert "classification" in metadata.extensions


async def test_the_server_is_ready_when_the_frontend_is(models: Path) -> None:
    ready = False
    async with calling(models, FakeBackend(), is_ready=lambda: ready) as caller:
        assert not (await caller.stub.ServerReady(pb.ServerReadyRequest(), timeout=PATIENCE)).ready
        ready = True
        assert (await caller.stub.ServerReady(pb.ServerReadyRequest(), timeout=PATIENCE)).ready


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("model", "", True),
        ("model", "1.0", True),
        ("model", "2", False),
        ("unnumbered", "1", True),
        ("foreign", "", False),
        ("empty", "", False),
        ("unknown", "", False),
        ("../model", "", False),
        ("", "", False),
    ],
)
async def test_a_model_is_ready_where_it_is_there_and_has_an_engine(
    name: str, version: str, ready: bool, models: Path
) -> None:
    engine = FakeBackend()
    async with calling(models, engine) as caller:
        answer = await caller.stub.ModelReady(pb.ModelReadyRequest(name=name, version=version), timeout=PATIENCE)

    assert answer.ready is ready
    assert engine.batches == [], "nothing is loaded"


async def test_a_model_is_not_told_to_be_missing_while_its_volume_does_not_answer(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(OpenFolder, "status", failing)
    async with calling(models, FakeBackend()) as caller:
        code, _ = await caller.refusal("ModelReady", pb.ModelReadyRequest(name="model"))

    assert code is StatusCode.UNAVAILABLE


async def test_metadata_tells_the_tensors(models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        metadata = await caller.stub.ModelMetadata(pb.ModelMetadataRequest(name="model"), timeout=PATIENCE)

    assert json_format.MessageToDict(metadata) == {
        "name": "model",
        "versions": ["1.0"],
        "platform": "intent-serving",
        "inputs": [{"name": "document", "datatype": "BYTES", "shape": ["-1", "1"]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": ["-1", "1"]},
            {"name": "score", "datatype": "FP32", "shape": ["-1", "1"]},
        ],
        "properties": {
            "algorithm": "intent-classification",
            "classes": "3",
            "optional_outputs": "best_label,best_score,explanation,path",
        },
    }


async def test_a_configuration_tells_what_triton_would(models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        answer = await caller.stub.ModelConfig(pb.ModelConfigRequest(name="model", version="1.0"), timeout=PATIENCE)

    assert answer.config.HasField("dynamic_batching")
    assert json_format.MessageToDict(answer.config, preserving_proto_field_name=True) == {
        "name": "model",
        "platform": "intent-serving",
        "backend": "intent-serving",
        "max_batch_size": LIMITS.max_batch_size,
        "input": [{"name": "document", "data_type": "TYPE_STRING", "dims": ["1"]}],
        "output": [
            {"name": "label", "data_type": "TYPE_STRING", "dims": ["1"]},
            {"name": "score", "data_type": "TYPE_FP32", "dims": ["1"]},
        ],
        "dynamic_batching": {},
        "model_transaction_policy": {},
    }


async def test_a_model_without_a_version_of_its_own_has_version_1(models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        metadata = await caller.stub.ModelMetadata(pb.ModelMetadataRequest(name="unnumbered"), timeout=PATIENCE)

    assert list(metadata.versions) == ["1"]


async def test_a_model_that_no_engine_serves_is_described_all_the_same(models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        metadata = await caller.stub.ModelMetadata(pb.ModelMetadataRequest(name="foreign"), timeout=PATIENCE)

    assert metadata.properties["algorithm"] == "image-segmentation"


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
@pytest.mark.parametrize(
    ("name", "version", "code"),
    [
        ("unknown", "", StatusCode.NOT_FOUND),
        ("../model", "", StatusCode.NOT_FOUND),
        ("model", "7", StatusCode.NOT_FOUND),
        ("empty", "", StatusCode.FAILED_PRECONDITION),
    ],
)
async def test_what_is_not_there_cannot_be_described(
    method: str, name: str, version: str, code: StatusCode, models: Path
) -> None:
    request = getattr(pb, f"{method}Request")(name=name, version=version)
    async with calling(models, FakeBackend()) as caller:
        found, message = await caller.refusal(method, request)

    assert found is code
    assert "runId" not in message
    assert_fit_for_callers(ServingError(message))


async def test_a_model_that_is_published_again_is_described_as_it_is_now(models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        publish(models, "model", classes=CLASSES, ModelVersion="2.0")
        metadata = await caller.stub.ModelMetadata(pb.ModelMetadataRequest(name="model"), timeout=PATIENCE)

    assert list(metadata.versions) == ["2.0"]
