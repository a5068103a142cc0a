"""Names with versions, as clients of the Open Inference Protocol see them, over a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

from serving.domain.errors import NonFiniteLogits, ServingError
from serving.domain.prediction import Outcome, Prediction, Query, ScoredLabel
from serving.domain.releases.release import Canary, Release
from serving.stubs import open_inference_pb2 as pb
from tests.builders import PATIENCE, publish
from tests.fakes.backend import FakeBackend
from tests.frontend.open_inference.running import Caller, calling, classes_of, typed
from tests.frontend.releases.running import write_release
from tests.serving.refusals import assert_fit_for_callers

CLASSES = {"v1": ("no", "yes"), "v2": ("no", "perhaps", "yes"), "v3": ("yes",)}
ALWAYS = Canary(version="v2", share=1.0, max_error_rate=1.0, max_disagreement=1.0)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish(tmp_path, "flat", ModelVersion="7")
    for version, classes in CLASSES.items():
        publish(tmp_path, f"model/{version}", classes=dict(zip("012", classes, strict=False)), ModelVersion="1.0")
        publish(tmp_path, f"unreleased/{version}")
    write_release(tmp_path, Release(revision=1, stable="v1", labels={"tested": "v3"}), "model")
    return tmp_path


def answer(query: Query) -> Prediction:
    """Answer with the last class of the version and as many best labels as the query requests."""
    version = query.model_id.partition("@")[2] or "v1"
    best = tuple(ScoredLabel(label, 0.5) for label in reversed(CLASSES[version]))
    return Prediction(best[0].label, 0.5, best[: query.k], query.model_id, "1.0")


async def infer(caller: Caller, *documents: str, **fields: Any) -> tuple[str, str, list[bytes]]:
    response = await caller.infer(typed(*(documents or ("x",)), **fields))
    return response.model_name, response.model_version, list(response.outputs[0].contents.bytes_contents)


@pytest.mark.parametrize(
    ("name", "version", "answers"),
    [
        ("model", "", "v1"),
        ("model", "v2", "v2"),
        ("model", "tested", "v3"),
        ("model", "stable", "v1"),
        ("model@v2", "", "v2"),
        ("model@v2", "v2", "v2"),
        ("model@tested", "", "v3"),
        ("unreleased", "v2", "v2"),
        ("unreleased@v3", "", "v3"),
        ("flat", "", "7"),
        ("flat", "7", "7"),
    ],
)
async def test_a_version_is_selected_by_the_protocols_own_field_or_by_the_release(
    name: str, version: str, answers: str, models: Path
) -> None:
    engine = FakeBackend(lambda query: answer(query)._replace(model_version="7" if query.model_id == "flat" else "1.0"))
    async with calling(models, engine) as caller:
        told, answered_by, _ = await infer(caller, model=name, model_version=version)
        ready = await caller.stub.ModelReady(pb.ModelReadyRequest(name=name, version=version), timeout=PATIENCE)

    assert (told, answered_by, ready.ready) == (name, answers, True)


@pytest.mark.parametrize(
    ("name", "version"),
    [("model", "v9"), ("model", "../v1"), ("model@v2", "v1"), ("unreleased", ""), ("unreleased", "v9"), ("flat", "v1")],
)
async def test_a_version_that_is_not_there_is_not_found(name: str, version: str, models: Path) -> None:
    async with calling(models, FakeBackend(answer)) as caller:
        code, message = await caller.refusal("ModelInfer", typed("x", model=name, model_version=version))
        ready = await caller.stub.ModelReady(pb.ModelReadyRequest(name=name, version=version), timeout=PATIENCE)

    assert code is StatusCode.NOT_FOUND
    assert "runId" not in message
    assert_fit_for_callers(ServingError(message))
    assert not ready.ready


async def test_metadata_lists_the_versions_and_describes_the_one_that_is_asked_for(models: Path) -> None:
    async with calling(models, FakeBackend(answer)) as caller:
        for version, classes in (("", 2), ("v2", 3), ("v3", 1)):
            request = pb.ModelMetadataRequest(name="model", version=version)
            metadata = await caller.stub.ModelMetadata(request, timeout=PATIENCE)
            assert (metadata.name, list(metadata.versions)) == ("model", ["v1", "v2", "v3"])
            assert metadata.properties["classes"] == str(classes)


async def test_the_index_lists_what_is_live_of_a_name(models: Path) -> None:
    (models / "model" / "v2" / "manifest.json").write_text("{")
    write_release(models, Release(revision=2, stable="v1", canary=Canary(version="v2")), "model")
    async with calling(models, FakeBackend(answer)) as caller:
        index = await caller.stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=PATIENCE)

    assert [(model.name, model.version, model.state) for model in index.models] == [
        ("flat", "7", "READY"),
        ("model", "v1", "READY"),
        ("model", "v2", "UNAVAILABLE"),
    ]


async def test_a_name_is_loaded_and_unloaded_with_all_that_is_live(models: Path) -> None:
    engine = FakeBackend(answer)
    async with calling(models, engine) as caller:
        await caller.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="model"), timeout=PATIENCE)
        await caller.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="model"), timeout=PATIENCE)

    assert engine.loaded == engine.unloaded == ["model@v1", "model@v3"]


async def test_a_canary_answers_with_its_own_version_and_classes(models: Path) -> None:
    write_release(models, Release(revision=2, stable="v1", canary=ALWAYS), "model")
    async with calling(models, FakeBackend(answer)) as caller:
        assert await infer(caller) == ("model", "v2", [b"yes"])
        assert await infer(caller, "x", "y", outputs=[classes_of(2)]) == (
            "model", "v2", [b"0.500000:2:yes", b"0.500000:1:perhaps"] * 2,
        )  # fmt: skip


async def test_the_rows_of_a_request_are_all_answered_by_one_version(models: Path) -> None:
    def failing(query: Query) -> Outcome:
        fails = query.model_id == "model@v2" and query.document == "fails"
        return NonFiniteLogits("not a number") if fails else answer(query)

    write_release(models, Release(revision=2, stable="v1", canary=ALWAYS), "model")
    async with calling(models, FakeBackend(failing)) as caller:
        assert (await infer(caller, "x", "y"))[1] == "v2"
        assert (await infer(caller, "x", "fails"))[1] == "v1"
        half = ALWAYS.model_copy(update={"share": 0.5})
        write_release(models, Release(revision=3, stable="v1", canary=half), "model")
        versions = {(await infer(caller, *"abcdefgh"))[1] for _ in range(50)}
    assert versions == {"v1", "v2"}


async def test_requests_of_one_key_get_one_side(models: Path) -> None:
    half = ALWAYS.model_copy(update={"share": 0.5})
    write_release(models, Release(revision=2, stable="v1", canary=half), "model")
    async with calling(models, FakeBackend(answer)) as caller:
        sides = {}
        for number in range(20):
            parameters = {"key": pb.InferParameter(string_param=str(number))}
            sides[number] = {(await infer(caller, *documents, parameters=parameters))[1] for documents in ("x", "xy")}
        wrong = {"key": pb.InferParameter(int64_param=1)}
        code, _ = await caller.refusal("ModelInfer", typed("x", parameters=wrong))

    assert {len(versions) for versions in sides.values()} == {1}
    assert set.union(*sides.values()) == {"v1", "v2"}
    assert code is StatusCode.INVALID_ARGUMENT


async def test_statistics_are_kept_by_version(models: Path) -> None:
    async with calling(models, FakeBackend(answer)) as caller:
        await infer(caller)
        await infer(caller, "x", "y", model_version="v2")
        counted = {}
        for version in ("", "v2", "v3"):
            request = pb.ModelStatisticsRequest(name="model", version=version)
            answered = await caller.stub.ModelStatistics(request, timeout=PATIENCE)
            counted[version] = [(each.name, each.inference_count) for each in answered.model_stats]

    assert counted == {"": [("model", 1), ("model", 2)], "v2": [("model", 2)], "v3": [("model", 0)]}
