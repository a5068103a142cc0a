from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpc import StatusCode

from frontend.predictions.predictions import PATIENCE_SECONDS, RoutedPredictions
from frontend.routing.catalog import Catalog
from frontend.routing.router import Router
from serving.domain.errors import (
    DocumentTooLarge,
    InvalidModelId,
    InvalidRequest,
    ModelNotFound,
    NoBackend,
    NonFiniteLogits,
    ServingError,
    Unavailable,
)
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.query_limits import QueryLimits
from serving.volume.freshness.comparison import ThreadComparison
from serving.volume.model_store import ModelStore
from tests.builders import PATIENCE, a_call, a_prediction, a_turn, publish
from tests.fakes.backend import FakeBackend


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish(tmp_path, "left", Algorithm="left")
    publish(tmp_path, "right", Algorithm="right")
    publish(tmp_path, "lost", Algorithm="no engine has this")
    return tmp_path


@asynccontextmanager
async def routed(
    models: Path, left: FakeBackend, right: FakeBackend, patience_seconds: float = PATIENCE_SECONDS
) -> AsyncIterator[RoutedPredictions]:
    catalog = Catalog(ModelStore(models), threads=2, freshness_seconds=60.0, comparison=ThreadComparison())
    router = Router({"left": left, "right": right})
    predictions = RoutedPredictions(catalog, router, QueryLimits(100, 8), patience_seconds=patience_seconds)
    try:
        yield predictions
    finally:
        await predictions.close()


def told(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.label if isinstance(outcome, Prediction) else type(outcome).__name__ for outcome in outcomes]


async def test_a_query_goes_to_the_engine_of_its_model_with_its_call(models: Path) -> None:
    left, right = FakeBackend(), FakeBackend()
    async with routed(models, left, right) as predictions:
        call = a_call()
        assert await predictions.predict(Query("right", "hello", k=2), call) == a_prediction(Query("right", "hello", 2))
        assert (left.batches, right.batches) == ([], [[Query("right", "hello", 2)]])
        assert right.calls == [call]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        (Query("unknown", "x"), ModelNotFound),
        (Query("lost", "x"), NoBackend),
        (Query("../left", "x"), InvalidModelId),
        (Query("left", "x" * 101), DocumentTooLarge),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_query_that_cannot_be_routed_is_told_and_reaches_no_engine(
    query: Query, error: type[Exception], models: Path
) -> None:
    left, right = FakeBackend(), FakeBackend()
    async with routed(models, left, right) as predictions:
        with pytest.raises(error):
            await predictions.predict(query, a_call())
        assert told(await predictions.predict_batch([query], a_call())) == [error.__name__]
        assert (left.batches, right.batches) == ([], [])


async def test_a_batch_across_engines_keeps_its_order_and_asks_each_engine_once(models: Path) -> None:
    left, right = FakeBackend(), FakeBackend()
    async with routed(models, left, right) as predictions:
        names = ["left", "right", "unknown", "right", "left", "..", "lost", "left"]
        queries = [Query(name, f"{name} {number}") for number, name in enumerate(names)]
        outcomes = await predictions.predict_batch(queries, a_call())
        assert told(outcomes) == [
            "left 0", "right 1", "ModelNotFound", "right 3", "left 4", "InvalidModelId", "NoBackend", "left 7",
        ]  # fmt: skip
        assert [[query.document for query in batch] for batch in left.batches] == [["left 0", "left 4", "left 7"]]
        assert [[query.document for query in batch] for batch in right.batches] == [["right 1", "right 3"]]


async def test_an_engine_that_fails_fails_its_own_part_only(models: Path) -> None:
    left, right = FakeBackend(failure=Unavailable("away")), FakeBackend()
    async with routed(models, left, right) as predictions:
        outcomes = await predictions.predict_batch(
            [Query("left", "1"), Query("right", "2"), Query("left", "3")], a_call()
        )
        assert told(outcomes) == ["Unavailable", "2", "Unavailable"]


async def test_a_query_that_fails_in_an_engine_fails_alone(models: Path) -> None:
    def answer(query: Query) -> Outcome:
        return NonFiniteLogits("no number") if query.document == "2" else a_prediction(query)

    async with routed(models, FakeBackend(answer), FakeBackend()) as predictions:
        outcomes = await predictions.predict_batch([Query("left", text) for text in "123"], a_call())
        assert told(outcomes) == ["1", "NonFiniteLogits", "3"]
        with pytest.raises(NonFiniteLogits):
            await predictions.predict(Query("left", "2"), a_call())


async def test_a_bug_in_an_engine_is_not_told_as_an_answer(models: Path) -> None:
    async with routed(models, FakeBackend(failure=ZeroDivisionError()), FakeBackend()) as predictions:
        with pytest.raises(ZeroDivisionError):
            await predictions.predict(Query("left", "x"), a_call())
        failed, answered = await predictions.predict_batch([Query("left", "x"), Query("right", "y")], a_call())
        assert isinstance(failed, ServingError)
        assert failed.code is StatusCode.INTERNAL
        assert isinstance(answered, Prediction)


async def test_a_bug_in_the_catalog_is_not_told_as_an_answer(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with routed(models, FakeBackend(), FakeBackend()) as predictions:

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(ModelStore, "read_manifest", broken)
        with pytest.raises(ZeroDivisionError):
            await predictions.predict_batch([Query("left", "x"), Query("unknown", "y")], a_call())


async def test_an_engine_that_answers_too_few_is_a_bug_and_shifts_no_answer(models: Path) -> None:
    class FakeForgetful(FakeBackend):
        async def predict_batch(self, queries: Sequence[Query], call: object) -> Sequence[Outcome]:
            return [a_prediction(query) for query in queries[1:]]

    async with routed(models, FakeForgetful(), FakeBackend()) as predictions:
        with pytest.raises(ValueError, match="shorter"):
            await predictions.predict_batch([Query("left", "1"), Query("left", "2")], a_call())


async def test_a_batch_larger_than_the_limit_is_refused_as_a_whole(models: Path) -> None:
    left = FakeBackend()
    async with routed(models, left, FakeBackend()) as predictions:
        assert len(await predictions.predict_batch([Query("left", "x")] * 8, a_call())) == 8
        left.batches.clear()
        with pytest.raises(InvalidRequest, match="8"):
            await predictions.predict_batch([Query("left", "x")] * 9, a_call())
        assert left.batches == []
        assert await predictions.predict_batch([], a_call()) == []


async def test_it_is_ready_when_every_engine_is_and_closes_each_of_them(models: Path) -> None:
    left, right = FakeBackend(), FakeBackend()
    async with routed(models, left, right) as predictions:
        waiting = asyncio.create_task(predictions.wait_until_ready())
        left.ready.set()
        await a_turn(5)
        assert not waiting.done()
        right.ready.set()
        await asyncio.wait_for(waiting, PATIENCE)
    assert (left.closed, right.closed) == (1, 1)


async def test_an_engine_that_is_down_does_not_keep_the_others_from_their_callers(models: Path) -> None:
    left, right = FakeBackend(), FakeBackend()
    async with routed(models, left, right, patience_seconds=0.01) as predictions:
        waiting = asyncio.create_task(predictions.wait_until_ready())
        await asyncio.sleep(0.05)
        assert not waiting.done(), "ready without any engine"
        left.ready.set()
        await asyncio.wait_for(waiting, PATIENCE)


async def test_an_engine_that_cannot_ever_be_ready_is_told(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = FakeBackend(), FakeBackend()

    async def fail() -> None:
        raise Unavailable("never")

    monkeypatch.setattr(left, "wait_until_ready", fail)
    right.ready.set()
    async with routed(models, left, right) as predictions:
        with pytest.raises(Unavailable):
            await predictions.wait_until_ready()


async def test_a_model_is_let_go_by_its_engine(models: Path) -> None:
    left, right = FakeBackend(), FakeBackend()
    async with routed(models, left, right) as predictions:
        await predictions.unload("right", a_call())
        for model, error in (("unknown", ModelNotFound), ("../left", InvalidModelId), ("lost", NoBackend)):
            with pytest.raises(error):
                await predictions.unload(model, a_call())
    assert (left.unloaded, right.unloaded) == ([], ["right"])
