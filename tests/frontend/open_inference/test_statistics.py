"""Statistics of each model that is queried through the Open Inference Protocol."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from frontend.open_inference.models import NamedModel
from frontend.open_inference.statistics import InferenceStatistics, ModelCounts, Times
from serving.domain.errors import Unavailable
from serving.domain.manifest import Manifest
from serving.domain.prediction import Prediction
from serving.stubs import open_inference_pb2 as pb
from tests.builders import PATIENCE, model_id, publish
from tests.fakes.backend import FakeBackend
from tests.fakes.hanging_backend import FakeHangingBackend
from tests.frontend.open_inference.running import Caller, calling, typed


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish(tmp_path, "model", ModelVersion="1.0")
    publish(tmp_path, "other")
    return tmp_path


async def statistics(caller: Caller, name: str = "") -> dict[str, Any]:
    answer = await caller.stub.ModelStatistics(pb.ModelStatisticsRequest(name=name), timeout=PATIENCE)
    return {model.name: model for model in answer.model_stats}


def a_model(name: str, version: str = "1.0") -> NamedModel:
    manifest = Manifest(Algorithm="intent-classification", ModelVersion=version)
    return NamedModel(name, model_id(name), model_id(name), manifest, version)


async def test_requests_and_documents_are_counted_by_model(models: Path) -> None:
    before = time.time_ns() // 1_000_000
    async with calling(models, FakeBackend()) as caller:
        await caller.infer(typed("a"))
        await caller.infer(typed("a", "b", "c"))
        await caller.infer(typed("a", model="other"))
        found = await statistics(caller)

    assert set(found) == {"model", "other"}
    model = found["model"]
    assert (model.inference_count, model.execution_count) == (4, 2)
    assert before <= model.last_inference <= time.time_ns() // 1_000_000
    counted = model.inference_stats
    assert (counted.success.count, counted.fail.count) == (2, 0)
    # perf_analyzer requires equal counts of the parts, whose sum must not exceed the whole.
    parts = (counted.queue, counted.compute_input, counted.compute_infer, counted.compute_output)
    assert [part.count for part in parts] == [2, 2, 2, 2]
    assert counted.success.ns == sum(part.ns for part in parts)
    assert min(part.ns for part in parts) > 0


@pytest.mark.parametrize("documents", [["x"], ["x", "y"], [], ["x" * 99]], ids=["one", "two", "none", "too long"])
async def test_requests_that_fail_are_counted_as_failed(documents: list[str], models: Path) -> None:
    async with calling(models, FakeBackend(failure=Unavailable("away"))) as caller:
        await caller.refusal("ModelInfer", typed(*documents))
        model = (await statistics(caller, "model"))["model"]

    assert (model.inference_count, model.execution_count) == (0, 0)
    assert (model.inference_stats.success.count, model.inference_stats.fail.count) == (0, 1)
    assert model.inference_stats.fail.ns > 0
    assert model.last_inference > 0


async def test_a_caller_who_leaves_is_counted_as_failed(models: Path) -> None:
    engine = FakeHangingBackend()
    async with calling(models, engine) as caller:
        call = caller.stub.ModelInfer(typed("x"), timeout=PATIENCE)
        leaving = asyncio.ensure_future(call)
        await asyncio.wait_for(engine.started.wait(), PATIENCE)
        call.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        failed = 0
        while not failed:
            failed = (await statistics(caller, "model"))["model"].inference_stats.fail.count

    assert failed == 1


async def test_a_model_that_was_never_asked_has_zeros_and_is_not_among_all(models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        model = (await statistics(caller, "model"))["model"]
        assert await statistics(caller) == {}

    assert (model.version, model.inference_count, model.last_inference) == ("1", 0, 0)
    assert model.inference_stats.success.count == 0


async def test_names_that_no_model_has_are_not_counted(models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        for number in range(5):
            with pytest.raises(grpc.aio.AioRpcError):
                await caller.infer(typed("x", model=f"unknown-{number}"))
        assert await statistics(caller) == {}


@pytest.mark.parametrize(
    ("version", "told"),
    [("2", "2"), ("2.0", "2"), ("3.1.4", "3"), ("007", "7"), ("0", "0"), ("v2", "1"), ("9" * 30, "9" * 18)],
)
async def test_the_version_is_told_as_the_whole_number_that_tools_of_triton_want(
    version: str, told: str, models: Path
) -> None:
    engine = FakeBackend(lambda query: Prediction("yes", 1.0, (), query.model_id, version))
    async with calling(models, engine) as caller:
        await caller.infer(typed("a"))
        assert (await statistics(caller))["model"].version == told


async def test_the_version_is_the_one_that_answered_last(models: Path) -> None:
    version = "1"
    engine = FakeBackend(lambda query: Prediction("yes", 1.0, (), query.model_id, version))
    async with calling(models, engine) as caller:
        await caller.infer(typed("a"))
        version = "2"
        await caller.infer(typed("a"))
        model = (await statistics(caller))["model"]

    assert (model.version, model.execution_count) == ("2", 2)


def test_models_that_were_asked_least_recently_are_forgotten_first() -> None:
    counted = InferenceStatistics(most_models=3)
    for name in ("a", "b", "c", "a", "d"):
        counted.count_success(a_model(name), "1.0", 1, Times(1, 2, 5, 2))
        # Reading the counts of a model is not a query to it.
        assert counted.of(a_model("b")) in [*counted.of_all(), ModelCounts(model_id("b"), "1.0")]

    assert {model.model: model.documents for model in counted.of_all()} == {"a": 2, "c": 1, "d": 1}
    assert counted.of(a_model("b")).documents == 0


def test_what_was_told_does_not_change_afterwards() -> None:
    counted = InferenceStatistics()
    counted.count_failure(a_model("a"), 10)
    told = [counted.of(a_model("a")), *counted.of_all()]
    counted.count_failure(a_model("a"), 10)
    counted.count_success(a_model("a"), "1.0", 1, Times(1, 2, 5, 2))

    assert [(model.failures, model.requests) for model in told] == [(1, 0), (1, 0)]
