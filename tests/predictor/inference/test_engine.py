from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
from grpc import StatusCode

from predictor.cache.model_manager import ModelManager, ModelSource
from predictor.cache.residency import ResidentModels
from predictor.inference.engine import InferenceEngine
from predictor.inference.traffic_registry import TrafficRegistry
from predictor.model.intent_model import IntentModel
from predictor.model.loader import FileLimits, Loader
from predictor.model.tokenizer import Tokenizer
from serving.call.deadline import NEVER, Deadline
from serving.domain.errors import (
    DeadlineExceeded,
    DocumentTooLarge,
    InvalidModelId,
    InvalidRequest,
    ModelNotFound,
    ModelPinned,
    NonFiniteLogits,
    ServingError,
)
from serving.domain.model_id import ModelId
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.query_limits import QueryLimits
from serving.volume.model_store import ModelStore
from tests.builders import PATIENCE, a_prediction, a_turn, happened
from tests.fakes.clock import FakeClock
from tests.fakes.intent_model import FakeIntentModel
from tests.fakes.model_source import source_of

LIMIT = 10_000


@dataclass
class Bench:
    engine: InferenceEngine
    models: dict[str, FakeIntentModel]
    residents: ResidentModels[IntentModel]
    acquired: list[ModelId]
    clock: FakeClock

    def leases(self, name: str) -> int:
        resident = self.residents.get(ModelId(name))
        return resident.leases if resident is not None else 0


def manager_of(source: object, residents: ResidentModels[IntentModel]) -> ModelManager[IntentModel]:
    return ModelManager(
        cast("ModelSource[IntentModel]", source), residents, threads=2, max_loads=10, freshness_seconds=60.0
    )


@asynccontextmanager
async def bench(*, max_batch_size: int = 8, threads: int = 2) -> AsyncIterator[Bench]:
    models = {name: FakeIntentModel() for name in "ab"}
    residents: ResidentModels[IntentModel] = ResidentModels(max_bytes=100, max_models=10)
    manager = manager_of(source_of(models), residents)
    acquired: list[ModelId] = []
    acquire = manager.acquire

    async def counted(model_id: ModelId, deadline: Deadline = NEVER) -> Any:
        acquired.append(model_id)
        return await acquire(model_id, deadline)

    manager.acquire = counted  # type: ignore[method-assign]
    clock = FakeClock()
    engine = InferenceEngine(
        manager, QueryLimits(LIMIT, max_batch_size), TrafficRegistry(8), threads=threads, clock=clock
    )
    try:
        with structlog.testing.capture_logs():
            yield Bench(engine, models, residents, acquired, clock)
    finally:
        for model in models.values():
            model.gate.open()
        await engine.close()


def told(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the label of each prediction and the class name of each error."""
    return [outcome.label if isinstance(outcome, Prediction) else type(outcome).__name__ for outcome in outcomes]


async def test_a_query_is_answered_by_its_model() -> None:
    async with bench() as it:
        answer = await it.engine.predict(Query("b", "hello", k=2))
        assert answer == a_prediction(Query("b", "hello", k=2))
        assert it.models["a"].asked == []


async def test_outcomes_stand_in_the_order_of_the_queries_and_each_has_its_own_error() -> None:
    async with bench() as it:
        outcomes = await it.engine.predict_batch(
            [
                Query("a", "1"),
                Query("unknown", "2"),
                Query("b", "3"),
                Query("../a", "4"),
                Query("a", "x" * (LIMIT + 1)),
                Query("b", "nan"),
                Query("a", "7"),
            ]
        )
        assert told(outcomes) == [
            "1", "ModelNotFound", "3", "InvalidModelId", "DocumentTooLarge", "NonFiniteLogits", "7",
        ]  # fmt: skip


async def test_queries_of_one_model_go_through_it_together() -> None:
    async with bench() as it:
        queries = [Query("ab"[number % 2], str(number)) for number in range(8)]
        assert told(await it.engine.predict_batch(queries)) == [str(number) for number in range(8)]
        assert sorted(it.acquired) == ["a", "b"]
        assert it.models["a"].asked == [["0", "2", "4", "6"]]
        assert it.models["b"].asked == [["1", "3", "5", "7"]]


async def test_an_empty_batch_has_no_outcomes() -> None:
    async with bench() as it:
        assert await it.engine.predict_batch([]) == []


async def test_a_query_whose_answer_is_an_error_raises_it() -> None:
    async with bench() as it:
        with pytest.raises(NonFiniteLogits):
            await it.engine.predict(Query("a", "nan"))
        assert it.leases("a") == 0


@pytest.mark.parametrize(
    ("document", "fits"),
    [
        ("x" * (LIMIT - 1), True),
        ("x" * LIMIT, True),
        ("x" * (LIMIT + 1), False),
        ("é" * (LIMIT // 2), True),
        ("é" * (LIMIT // 2) + "x", False),
        ("😀" * (LIMIT // 4), True),
        ("😀" * (LIMIT // 4) + "x", False),
        ("", True),
        ("\0" * LIMIT, True),
    ],
    ids=[
        "one-less",
        "limit",
        "one-more",
        "two-bytes",
        "two-bytes-more",
        "four-bytes",
        "four-bytes-more",
        "empty",
        "nul",
    ],
)
async def test_documents_are_measured_in_bytes(document: str, fits: bool) -> None:
    async with bench() as it:
        if fits:
            assert (await it.engine.predict(Query("a", document))).label == document
        else:
            with pytest.raises(DocumentTooLarge, match=str(LIMIT)):
                await it.engine.predict(Query("a", document))
            assert it.acquired == []


async def test_a_batch_larger_than_the_limit_is_refused_as_a_whole() -> None:
    async with bench(max_batch_size=3) as it:
        assert len(await it.engine.predict_batch([Query("a", "x")] * 3)) == 3
        it.acquired.clear()
        with pytest.raises(InvalidRequest, match="3"):
            await it.engine.predict_batch([Query("a", "x")] * 4)
        assert it.acquired == []


BAD_IDS = ["", ".", "..", "../../etc", "/etc", "a/../b", "a\0b", "a\n", "%2e%2e", "ａ", "a" * 129, "..data"]


@pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
async def test_a_bad_id_is_refused_before_any_call_of_the_file_system(
    bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    residents: ResidentModels[IntentModel] = ResidentModels(max_bytes=100, max_models=10)
    manager = manager_of(Loader(ModelStore(tmp_path), FileLimits()), residents)
    engine = InferenceEngine(manager, QueryLimits(LIMIT, 8), TrafficRegistry(8), threads=1)
    touched: list[str] = []

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            touched.append(name)
            return real(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "stat", "lstat", "listdir", "scandir", "readlink"):
            patch.setattr(os, name, watched(name, getattr(os, name)))
        with pytest.raises(InvalidModelId):
            await engine.predict(Query(bad, "x"))
        assert told(await engine.predict_batch([Query(bad, "x")])) == ["InvalidModelId"]
        assert touched == []
        # Control: an id within the grammar does touch the volume.
        with pytest.raises(ModelNotFound):
            await engine.predict(Query("unknown", "x"))
        assert touched
    await engine.close()


async def test_short_documents_are_answered_on_the_event_loop_and_long_ones_in_the_pool() -> None:
    async with bench() as it:
        await it.engine.predict(Query("a", "short"))
        await it.engine.predict(Query("a", "x" * 9000))
        await it.engine.predict_batch([Query("a", "x" * 1000)] * 8)
        here, *others = it.models["a"].threads
        assert here == threading.current_thread().name
        assert [name.startswith("inference") for name in others] == [True, True]


@pytest.mark.parametrize(
    ("tokenizer", "query", "is_short"),
    [
        ("basic_english", Query("a", "x" * 7000), True),
        ("basic_english+words:2+characters:3-5", Query("a", "x" * 7000), False),
        ("basic_english+words:2+characters:3-5", Query("a", "x" * 1000), True),
        ("basic_english", Query("a", "x" * 2000, explain=("a",)), True),
        ("basic_english", Query("a", "x" * 2000, explain=("a",) * 4), False),
        ("basic_english+words:2+characters:3-5", Query("a", "x" * 500, explain=("a",) * 2), False),
    ],
    ids=["words", "many-n-grams", "fewer-n-grams", "two-explained", "five-explained", "n-grams-explained"],
)
async def test_work_counts_by_the_tokens_that_the_model_makes_and_the_labels_that_are_explained(
    tokenizer: str, query: Query, is_short: bool
) -> None:
    async with bench() as it:
        it.models["a"].tokenizer = Tokenizer.parse(tokenizer)
        await it.engine.predict(Query("a", "here"))
        await it.engine.predict(query)
        await it.engine.predict_batch([query])
        await it.engine.predict_ready([query])
        here, *others = it.models["a"].threads
        assert [name == here for name in others] == [is_short] * 3
        # Each call is one hit, whichever thread answers it.
        assert it.residents.statistics.hits == 3
        assert it.leases("a") == 0


async def test_every_answer_is_counted_once_wherever_it_was_computed() -> None:
    async with bench() as it:
        await it.engine.predict(Query("a", "short"))
        await it.engine.predict(Query("a", "x" * 9000))
        await it.engine.predict_batch([Query("a", "x" * 2000)] * 8)
        await it.engine.predict_batch([Query("b", "1"), Query("a", "2"), Query("a", "x" * (LIMIT + 1))])
        await it.engine.predict_ready([Query("b", "3")])
        counted = it.engine.traffic().busiest()
        assert [(each.model_id, each.counter.documents) for each in counted] == [("a", 11), ("b", 2)]


async def test_counts_outlive_the_stay_of_a_model_in_memory() -> None:
    async with bench() as it:
        await it.engine.predict(Query("a", "x"))
        it.engine.unload("a")
        await it.engine.predict(Query("a", "x"))
        assert it.residents.statistics.loads == 2
        (counted,) = it.engine.traffic().listed("a", 0)
        assert counted.counter.documents == 2


async def under_way(it: Bench) -> asyncio.Task[Prediction]:
    """Send a long document to the model "a"; a thread is busy with it until the model may answer."""
    it.models["a"].gate.shut()
    asked = asyncio.create_task(it.engine.predict(Query("a", "x" * 9000)))
    await happened(it.models["a"].gate.reached)
    return asked


async def test_the_event_loop_is_free_while_a_long_document_is_answered() -> None:
    async with bench() as it:
        long = await under_way(it)
        assert (await it.engine.predict(Query("b", "short"))).label == "short"
        it.models["a"].gate.open()
        assert (await long).label == "x" * 9000


async def test_a_model_is_in_use_until_its_thread_is_done_even_when_the_caller_has_left() -> None:
    async with bench() as it:
        caller = await under_way(it)
        caller.cancel()
        await asyncio.wait([caller], timeout=PATIENCE)
        assert caller.cancelled()
        assert it.leases("a") == 1
        released = it.residents.end_lease
        ended = asyncio.Event()

        def watched(resident: Any) -> None:
            released(resident)
            ended.set()

        it.residents.end_lease = watched  # type: ignore[method-assign]
        it.models["a"].gate.open()
        await asyncio.wait_for(ended.wait(), PATIENCE)
        assert it.leases("a") == 0


async def test_work_whose_caller_left_while_it_was_queued_is_never_done() -> None:
    async with bench(threads=1) as it:
        await it.engine.predict(Query("b", "short"))
        running = await under_way(it)
        queued = asyncio.create_task(it.engine.predict(Query("b", "y" * 9000)))
        await a_turn()
        assert it.leases("b") == 1
        queued.cancel()
        await asyncio.wait([queued], timeout=PATIENCE)
        it.models["a"].gate.open()
        await running
        await it.engine.predict(Query("a", "z" * 5000))
        assert it.models["b"].asked == [["short"]]
        assert (it.leases("a"), it.leases("b")) == (0, 0)


async def test_a_foreign_error_of_a_model_is_not_hidden_and_gives_the_lease_back() -> None:
    async with bench() as it:
        it.models["a"].failure = ZeroDivisionError()
        for document in ("short", "x" * 9000):
            with pytest.raises(ZeroDivisionError):
                await it.engine.predict(Query("a", document))
            (outcome,) = await it.engine.predict_batch([Query("a", document)])
            assert isinstance(outcome, ServingError)
            assert outcome.code is StatusCode.INTERNAL
        await a_turn()
        assert it.leases("a") == 0


async def test_closing_waits_for_work_in_threads() -> None:
    async with bench() as it:
        caller = await under_way(it)
        threading.Timer(0.05, it.models["a"].gate.open).start()
        await it.engine.close()
        assert (await caller).label == "x" * 9000


# Deadlines, and models that are ready.


@pytest.mark.parametrize("document", ["short", "long " * 200])
async def test_a_query_whose_deadline_has_passed_is_not_computed(document: str) -> None:
    async with bench() as it:
        await it.engine.predict(Query("a", "first"))
        passed = Deadline.after(0.0)
        with pytest.raises(DeadlineExceeded):
            await it.engine.predict(Query("a", document), passed)
        outcomes = await it.engine.predict_batch([Query("a", document), Query("a", "x")], passed)
        assert told(outcomes) == ["DeadlineExceeded", "DeadlineExceeded"]
        assert it.models["a"].asked == [["first"]]
        assert it.leases("a") == 0


@pytest.mark.parametrize("document", ["short", "long " * 200])
async def test_of_a_batch_for_several_callers_only_those_who_still_wait_are_answered(document: str) -> None:
    async with bench() as it:
        past, future = time.monotonic() - 0.001, time.monotonic() + PATIENCE
        queries = [Query("a", f"{document}{number}", until=past if number % 2 else future) for number in range(4)]
        outcomes = await it.engine.predict_batch(queries, Deadline.after(PATIENCE))
        assert told(outcomes) == [f"{document}0", "DeadlineExceeded", f"{document}2", "DeadlineExceeded"]
        assert it.models["a"].asked == [[f"{document}0", f"{document}2"]]
        nobody = await it.engine.predict_batch([Query("a", document, until=past)], Deadline.after(PATIENCE))
        assert told(nobody) == ["DeadlineExceeded"]
        assert len(it.models["a"].asked) == 1
        assert it.leases("a") == 0


async def test_of_a_batch_that_waited_for_a_thread_those_whose_deadline_is_too_near_are_not_computed() -> None:
    async with bench(threads=1) as it:
        await it.engine.predict(Query("b", "short"))
        running = await under_way(it)
        now = time.monotonic()
        near, far = (Query("b", text * 9000, until=now + seconds) for text, seconds in (("n", 60.0), ("f", 6000.0)))
        waiting = asyncio.create_task(it.engine.predict_batch([near, far]))
        await a_turn()
        # One document took some minutes; the two are estimated at more than the near deadline allows.
        it.clock.now += 900.0
        it.models["a"].gate.open()
        await running
        assert told(await waiting) == ["DeadlineExceeded", "f" * 9000]
        assert it.models["b"].asked == [["short"], ["f" * 9000]]


async def test_only_models_in_memory_are_ready_and_the_others_are_left_alone() -> None:
    async with bench() as it:
        await it.engine.predict(Query("a", "first"))
        queries = [Query("a", "x"), Query("b", "x"), Query("../up", "x"), Query("a", "y")]
        outcomes = await it.engine.predict_ready(queries)
        assert outcomes[1] is None
        assert told([outcome for outcome in outcomes if outcome is not None]) == [
            told([await it.engine.predict(Query("a", "x"))])[0],
            "InvalidModelId",
            told([await it.engine.predict(Query("a", "y"))])[0],
        ]
        assert it.residents.get(ModelId("b")) is None
        assert it.leases("a") == 0


async def test_a_model_that_is_unloaded_is_loaded_again_when_it_is_asked_for() -> None:
    async with bench() as it:
        await it.engine.predict(Query("a", "x"))
        assert it.engine.unload("a")
        assert not it.engine.unload("a")
        assert len(it.residents) == 0
        await it.engine.predict(Query("a", "x"))
        assert it.residents.statistics.loads == 2
        with pytest.raises(InvalidModelId):
            it.engine.unload("../a")


async def test_a_model_in_use_is_unloaded_and_ends_its_answers() -> None:
    async with bench() as it:
        it.models["a"].gate.shut()
        asked = asyncio.ensure_future(it.engine.predict(Query("a", "x" * 9000)))
        await happened(it.models["a"].gate.reached)
        assert it.engine.unload("a")
        assert it.residents.bytes_held == it.models["a"].size
        it.models["a"].gate.open()
        assert (await asked).label == "x" * 9000
        await a_turn(5)
        assert it.residents.bytes_held == 0


async def test_a_pinned_model_is_not_unloaded() -> None:
    residents: ResidentModels[IntentModel] = ResidentModels(max_bytes=1000, max_models=10, pinned=[ModelId("a")])
    manager = manager_of(source_of({"a": FakeIntentModel()}), residents)
    engine = InferenceEngine(manager, QueryLimits(LIMIT, 8), TrafficRegistry(8), threads=1)
    await engine.predict(Query("a", "x"))
    with pytest.raises(ModelPinned):
        engine.unload("a")
    assert len(residents) == 1
    await engine.close()
