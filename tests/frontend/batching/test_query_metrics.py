from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from frontend.assembly.metrics import collectors_of, query_counts
from frontend.batching.coalesced import coalesced
from frontend.batching.counts import QueryCounts
from frontend.engines.backend import Backend
from frontend.settings import FrontendSettings
from serving.domain.errors import InvalidRequest, ModelNotFound, OutOfCapacity, RemoteError, ServingError, Unavailable
from serving.domain.prediction import Prediction, Query
from tests.builders import a_call, a_prediction, a_turn
from tests.exposition import Exposition, fallen
from tests.fakes.engine import FakeEngine

ALL_NAMES = "intent,triton,modelmesh"


class Bench:
    """A frontend's path to an engine, with its counts."""

    def __init__(self, engine: FakeEngine, backend: Backend, counts: QueryCounts, settings: FrontendSettings) -> None:
        self.engine = engine
        self.backend = backend
        self.counts = counts
        self._collectors = collectors_of(counts, settings)

    @property
    def told(self) -> Exposition:
        return Exposition.of(*self._collectors)

    def ask(self, *queries: tuple[str, str]) -> list[asyncio.Task[Prediction]]:
        return [asyncio.ensure_future(self.backend.predict(Query(*query), a_call())) for query in queries]


@asynccontextmanager
async def bench(tmp_path: Path, names: str = "intent", models: int = 20) -> AsyncIterator[Bench]:
    settings = FrontendSettings(model_dir=tmp_path, metrics_port=1, metrics_names=names, metrics_models=models)
    counts = query_counts(settings)
    assert counts is not None
    engine = FakeEngine()
    backend = coalesced(engine, calls=1, counts=counts)
    try:
        yield Bench(engine, backend, counts, settings)
    finally:
        await backend.close()


def test_without_a_port_nothing_is_counted(tmp_path: Path) -> None:
    settings = FrontendSettings(model_dir=tmp_path)
    assert query_counts(settings) is None
    assert collectors_of(None, settings) == []


async def test_queries_that_wait_are_told_until_they_are_sent_together(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.engine.may_answer.clear()
        tasks = it.ask(("a", "first"))
        await a_turn(5)
        tasks += it.ask(("a", "x"), ("b", "y"), ("a", "z"))
        await a_turn(5)
        assert it.told.value("intent_queue_length") == 3
        assert it.told.value("intent_batch_size_count") == it.told.value("intent_queue_seconds_count") == 1
        it.engine.may_answer.set()
        await asyncio.gather(*tasks)
        told = it.told
    assert told.value("intent_queue_length") == 0
    assert told.value("intent_queue_seconds_count") == 4
    assert told.value("intent_queue_seconds_sum") > 0
    assert told.value("intent_batch_size_sum") == 4
    assert (told.value("intent_batch_size_bucket", le="1"), told.value("intent_batch_size_bucket", le="4")) == (1, 2)
    assert told.values("intent_model_requests_total") == {("a",): 3, ("b",): 1}


async def test_who_leaves_the_queue_is_counted_as_asked_and_not_as_sent(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.engine.may_answer.clear()
        tasks = it.ask(("a", "first"))
        await a_turn(5)
        leaving = it.ask(("b", "x"), ("b", "y"))
        await a_turn(5)
        for task in leaving:
            task.cancel()
        await asyncio.wait(leaving)
        it.engine.may_answer.set()
        await asyncio.gather(*tasks)
        await a_turn(5)
        told = it.told
    assert told.value("intent_queue_length") == 0
    assert told.value("intent_queue_seconds_count") == 1
    assert told.values("intent_model_requests_total") == {("a",): 1, ("b",): 2}


async def test_batches_of_callers_are_counted_by_model_and_wait_in_no_queue(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.backend.predict_batch([Query("a", "x"), Query("b", "y"), Query("a", "z")], a_call())
        told = it.told
    assert told.values("intent_model_requests_total") == {("a",): 2, ("b",): 1}
    assert told.value("intent_queue_seconds_count") == told.value("intent_batch_size_count") == 0


async def test_a_query_that_the_engine_wants_alone_is_counted_once(tmp_path: Path) -> None:
    async with bench(tmp_path, ALL_NAMES) as it:
        it.engine.cold = {"a"}
        await it.backend.predict(Query("a", "x"), a_call())
        told = it.told
    assert told.values("intent_model_requests_total") == {("a",): 1}
    assert told.values("nv_inference_exec_count") == {("a", "1.0"): 1}


async def test_an_engine_of_old_that_takes_no_batches_is_counted_too(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        it.engine.refusal = RemoteError("no such method", StatusCode.UNIMPLEMENTED)
        await it.backend.predict(Query("a", "x"), a_call())
        assert it.told.values("intent_model_requests_total") == {("a",): 1}
        await it.backend.predict(Query("a", "y"), a_call())
        assert it.told.values("intent_model_requests_total") == {("a",): 2}
    assert [query.document for query in it.engine.alone] == ["x", "y"]


async def test_only_the_busiest_models_have_series(tmp_path: Path) -> None:
    async with bench(tmp_path, ALL_NAMES, models=3) as it:
        for number in range(5000):
            it.counts.sent_at_once([Query(f"tenant-{number}", "x")] * (1 + number % 7))
        it.counts.sent_at_once([Query("busy", "x")] * 1000)
        told = it.told
    requests = told.values("intent_model_requests_total")
    assert len(requests) == 3
    assert requests["busy",] >= 1000
    assert {model for model, _ in told.values("nv_inference_request_success")} == {model for (model,) in requests}
    assert len(told.series) < 100


# Names of Triton.


async def test_names_of_triton_tell_requests_documents_executions_and_microseconds(tmp_path: Path) -> None:
    async with bench(tmp_path, "triton") as it:
        it.engine.may_answer.clear()
        tasks = it.ask(("a", "1"))
        await a_turn(5)
        tasks += it.ask(("a", "2"), ("b@v2", "3"), ("a", "4"))
        await a_turn(5)
        it.engine.may_answer.set()
        await asyncio.gather(*tasks)
        await it.backend.predict_batch([Query("a", "5"), Query("a", "6"), Query("b@v2", "7")], a_call())
        told = it.told
    a, b = ("a", "1.0"), ("b", "v2")
    assert told.values("nv_inference_request_success") == {a: 4, b: 2}
    assert told.values("nv_inference_count") == {a: 5, b: 2}
    assert told.values("nv_inference_exec_count") == {a: 3, b: 2}
    assert set(told.values("nv_inference_request_failure").values()) == {0}
    request = told.values("nv_inference_request_duration_us")
    queue = told.values("nv_inference_queue_duration_us")
    engine = told.values("nv_inference_compute_infer_duration_us")
    for model in (a, b):
        assert 0 < queue[model] < request[model]
        assert 0 < engine[model] <= request[model]
        assert float(request[model]).is_integer()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OutOfCapacity("full"), "REJECTED"),
        (Unavailable("down"), "BACKEND"),
        (ServingError("bug"), "BACKEND"),
        (InvalidRequest("too long"), "OTHER"),
        (ModelNotFound("gone"), "OTHER"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
async def test_requests_that_fail_have_the_reason_that_triton_gives(
    tmp_path: Path, error: ServingError, reason: str
) -> None:
    async with bench(tmp_path, "triton") as it:
        it.engine.answer = lambda query: error if query.document == "bad" else a_prediction(query)
        for documents in (["bad"], ["good", "bad", "bad"]):
            with contextlib.suppress(type(error)):
                await it.backend.predict_batch([Query("a", document) for document in documents], a_call())
        with pytest.raises(type(error)):
            await it.backend.predict(Query("a", "bad"), a_call())
        told = it.told.values("nv_inference_request_failure")
        assert {key: value for key, value in told.items() if value} == {("a", reason, "1"): 3}
        assert it.told.values("nv_inference_request_success") == {("a", "1"): 0}


async def test_a_request_whose_caller_leaves_is_canceled(tmp_path: Path) -> None:
    async with bench(tmp_path, "triton") as it:
        it.engine.may_answer.clear()
        (task,) = it.ask(("a", "x"))
        await a_turn(5)
        task.cancel()
        await asyncio.wait([task])
        assert it.told.values("nv_inference_request_failure")["a", "CANCELED", "1"] == 1


async def test_a_copy_of_another_version_has_counters_of_its_own(tmp_path: Path) -> None:
    async with bench(tmp_path, "triton") as it:
        await it.backend.predict(Query("a", "x"), a_call())
        it.engine.answer = lambda query: a_prediction(query)._replace(model_version="2.0")
        await it.backend.predict(Query("a", "x"), a_call())
        assert it.told.values("nv_inference_count") == {("a", "2.0"): 1}


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 3)), max_size=60), st.integers(1, 3))
async def test_no_counter_falls_while_models_replace_each_other_among_the_busiest(
    asked: list[tuple[str, int]], models: int
) -> None:
    async with bench(Path("/"), ALL_NAMES, models) as it:
        before = it.told
        for model, queries in asked:
            await it.backend.predict_batch([Query(model, "x")] * queries, a_call())
            after = it.told
            assert fallen(before, after) == []
            before = after


# Names of ModelMesh.


async def test_names_of_modelmesh_tell_the_wait_in_milliseconds(tmp_path: Path) -> None:
    async with bench(tmp_path, "modelmesh") as it:
        await it.backend.predict(Query("a", "x"), a_call())
        told = it.told
    assert told.value("modelmesh_req_queue_delay_milliseconds_count") == 1
    seconds = told.value("intent_queue_seconds_sum")
    assert told.value("modelmesh_req_queue_delay_milliseconds_sum") == pytest.approx(1000 * seconds)
    assert not {name for name in told.names if name.startswith("nv_")}


@pytest.mark.parametrize("names", ["prometheus", "intent,tritn", "TRITON"])
def test_names_that_nobody_knows_are_refused(tmp_path: Path, names: str) -> None:
    with pytest.raises(ValueError, match="not known; choose from intent, triton, modelmesh"):
        FrontendSettings(model_dir=tmp_path, metrics_names=names)


@pytest.mark.parametrize("names", ["", "intent", " triton , modelmesh", "triton"])
def test_ours_are_always_among_them(tmp_path: Path, names: str) -> None:
    assert "intent" in FrontendSettings(model_dir=tmp_path, metrics_names=names).names_of_metrics()
