"""Queries of several models in one pass: each query is answered as if it had been sent alone."""

from __future__ import annotations

import math
import time
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import structlog
from grpc import StatusCode
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.cache.model_manager import ModelManager
from predictor.cache.residency import ResidentModels
from predictor.inference import engine as engine_module
from predictor.inference.engine import InferenceEngine
from predictor.inference.joint_pass import ModelQuery, answers_together
from predictor.inference.traffic_registry import TrafficRegistry
from predictor.model.intent_model import IntentModel
from predictor.model.traffic_counter import TrafficCounter
from predictor.model.vocabulary import Vocabulary
from serving.call.call import Call
from serving.call.deadline import NEVER
from serving.domain.errors import ServingError
from serving.domain.model_id import ModelId
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.query_limits import QueryLimits
from tests.fakes.model_source import source_of
from tests.predictor.builders import manifest, model, network

WORDS = ["<unk>", "the", "red", "blue", "!"]


@cache
def models() -> dict[str, IntentModel]:
    """Return models that differ in their labels, their tokens and their treatment of low scores."""
    return {
        "one": model(WORDS, ["only"], 0),
        "two": model(WORDS, ["yes", "no"], 0, Confidence={"threshold": 0.6, "fallback": "no"}),
        "three": model(WORDS[:3], ["a", "b", "c"], None),
        "alike": model(WORDS, ["same", "same", "other"], 0, Confidence={"temperature": 2.5}),
        "many": model(WORDS, [f"label {number}" for number in range(150)], 0),
        "more": model(WORDS, [f"label {number}" for number in range(200)], 0, Confidence={"threshold": 0.9}),
        "ngrams": model([*WORDS, "the red"], ["a", "b"], 0, Tokenizer="basic_english+words:2"),
    }


queries = st.builds(
    Query,
    st.sampled_from(sorted(models())),
    st.lists(st.sampled_from([*WORDS[1:], "zebra"]), max_size=6).map(" ".join),
    k=st.integers(0, 4),
    threshold=st.none() | st.floats(0.0, 1.0),
    explain=st.none() | st.just(()),
)


@given(st.lists(queries, min_size=1, max_size=12))
@settings(deadline=None)
def test_each_is_answered_as_alone(asked: list[Query]) -> None:
    together, alone = ({name: TrafficCounter(each.labels) for name, each in models().items()} for _ in range(2))
    found = answers_together([ModelQuery(models()[query.model_id], query, together[query.model_id]) for query in asked])
    for query, outcome in zip(asked, found, strict=True):
        (expected,) = models()[query.model_id].predict([query], alone[query.model_id])
        assert_alike(outcome, expected)
    for name, counter in together.items():
        (counted, scores), (counted_alone, scores_alone) = (
            each.snapshot_with_scores() for each in (counter, alone[name])
        )
        assert counted == counted_alone
        assert scores == pytest.approx(scores_alone)


def assert_alike(outcome: Outcome, expected: Outcome) -> None:
    assert isinstance(outcome, Prediction)
    assert isinstance(expected, Prediction)
    assert (outcome.label, outcome.model_id, outcome.explanation) == (
        expected.label,
        expected.model_id,
        expected.explanation,
    )
    assert math.isclose(outcome.score, expected.score, rel_tol=1e-12)
    assert [best.label for best in outcome.best] == [best.label for best in expected.best]
    assert [best.score for best in outcome.best] == pytest.approx([best.score for best in expected.best])
    assert (outcome.fallback is None) == (expected.fallback is None)


def test_the_rows_of_long_documents_are_not_kept() -> None:
    dimensions, tokens, documents = 256, 2000, 32
    wide = IntentModel(ModelId("m"), manifest(["a", "b"]), Vocabulary.of(WORDS, 0), network(len(WORDS), dimensions, 2))
    asked = [ModelQuery(wide, Query("m", "the " * tokens), None)] * documents
    tracemalloc.start()
    answers_together(asked)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    rows = dimensions * np.dtype(np.float32).itemsize * tokens * documents
    assert most < rows / 4


# In the engine.


@asynccontextmanager
async def engine(**bounds: Any) -> AsyncIterator[InferenceEngine]:
    """Yield an engine with all models in memory; check at the end that each was hit once and that no lease is left."""
    residents: ResidentModels[IntentModel] = ResidentModels(max_bytes=1 << 30, max_models=10)
    manager = ModelManager(source_of(models()), residents, threads=1, max_loads=10, freshness_seconds=60.0)
    it = InferenceEngine(manager, QueryLimits(4096, 64), TrafficRegistry(10), threads=1, **bounds)
    await it.preload(map(ModelId, models()))
    hits = residents.statistics.hits
    try:
        yield it
        assert residents.statistics.hits - hits == len(models())
        leases = [resident.leases for name in models() if (resident := residents.get(ModelId(name)))]
        assert leases == [0] * len(models())
    finally:
        await it.close()


def one_each() -> list[Query]:
    return [Query(name, "the red", k=1) for name in models()]


def assert_all_answered(outcomes: Sequence[Outcome | None]) -> None:
    assert [outcome.model_id for outcome in outcomes if isinstance(outcome, Prediction)] == ["m"] * len(models())


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of queries in each pass."""
    sizes: list[int] = []

    def counted(asked: Sequence[ModelQuery]) -> list[Outcome]:
        sizes.append(len(asked))
        return answers_together(asked)

    monkeypatch.setattr(engine_module, "answers_together", counted)
    return sizes


async def test_the_engine_answers_several_models_in_one_pass(passes: list[int]) -> None:
    async with engine() as it:
        outcomes = it.predict_now([*one_each(), Query("absent", "x")], Call.until(NEVER))
    assert outcomes[-1] is None
    assert_all_answered(outcomes[:-1])
    assert passes == [len(models())]


async def test_a_pass_has_no_more_models_than_pay(passes: list[int]) -> None:
    async with engine(most_models_in_a_pass=3) as it:
        assert_all_answered(it.predict_now(one_each(), Call.until(NEVER)))
    assert passes == [3, 3, 1]


async def test_a_fault_of_one_does_not_harm_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = models()["two"]
    encode = IntentModel.encode

    def failing(self: IntentModel, document: str) -> object:
        if self is broken:
            raise ZeroDivisionError
        return encode(self, document)

    monkeypatch.setattr(IntentModel, "encode", failing)
    with structlog.testing.capture_logs() as events:
        async with engine() as it:
            outcomes = it.predict_now(one_each(), Call.until(NEVER))
    refused = dict(zip(models(), outcomes, strict=True)).pop("two")
    assert isinstance(refused, ServingError)
    assert refused.code is StatusCode.INTERNAL
    assert sum(isinstance(outcome, Prediction) for outcome in outcomes) == len(models()) - 1
    assert {"joint prediction failed", "prediction failed"} <= {event["event"] for event in events}


async def test_a_query_that_is_too_late_is_not_answered_and_its_neighbours_are() -> None:
    asked = one_each()
    asked[3] = asked[3].with_deadline(time.monotonic() - 1.0)
    async with engine() as it:
        outcomes = it.predict_now(asked, Call.until(NEVER))
    late = outcomes.pop(3)
    assert isinstance(late, ServingError)
    assert late.code is StatusCode.DEADLINE_EXCEEDED
    assert all(isinstance(outcome, Prediction) for outcome in outcomes)
