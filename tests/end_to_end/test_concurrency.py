"""Many callers and many models: each call gets one answer, the right one."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from predictor.model.intent_model import IntentModel
from predictor.model.loader import FileLimits, Loader
from serving.client import AsyncIntentClient, Prediction, Query
from serving.domain.model_id import ModelId
from serving.volume.model_store import ModelStore
from tests.conftest import ROOT
from tests.end_to_end.processes import Stack
from tests.samples import SAMPLES

CALLS = 5000
WORDS = (
    "please set an alarm timer for ten minutes what is my balance card transfer money book flight to paris tell me a "
    "joke how do i say hello in spanish recipe calories uber traffic weather tomorrow why was it declined top up pin "
    "exchange rate thanks ? ! . , zzzz 日本 😀"
).split()


def direct_models(folder: Path) -> dict[str, IntentModel]:
    """Return the sample models of a folder, which may hold others."""
    loader = Loader(ModelStore(folder), FileLimits())
    model_ids = [ModelId(name) for name in SAMPLES]
    return {model_id: loader.load(model_id, loader.fingerprint(model_id)) for model_id in model_ids}


def mixed_queries(model_ids: list[str]) -> list[Query]:
    chance = random.Random(7)
    return [
        Query(chance.choice(model_ids), " ".join(chance.choices(WORDS, k=chance.randint(0, 14)))) for _ in range(CALLS)
    ]


async def test_five_thousand_concurrent_mixed_calls_give_the_answers_of_direct_inference(running: Stack) -> None:
    models = direct_models(ROOT / "models")
    queries = mixed_queries(sorted(models))

    async with AsyncIntentClient(running.frontend.address, timeout=100) as client:
        answers = await asyncio.gather(*(client.predict(query.model_id, query.document) for query in queries))

    for query, answer in zip(queries, answers, strict=True):
        (expected,) = models[query.model_id].predict([query])
        assert isinstance(expected, Prediction)
        assert (answer.model_id, answer.label) == (query.model_id, expected.label)
        assert answer.score == pytest.approx(expected.score, abs=1e-5)


async def test_a_batch_of_many_models_keeps_the_order_and_the_errors_of_each(running: Stack) -> None:
    models = direct_models(ROOT / "models")
    queries = mixed_queries([*sorted(models), "no-such-model", "../etc"])[:1000]

    async with AsyncIntentClient(running.frontend.address, timeout=60) as client:
        outcomes = await client.predict_batch(queries)

    for query, outcome in zip(queries, outcomes, strict=True):
        if query.model_id not in models:
            expected = "NOT_FOUND" if query.model_id == "no-such-model" else "INVALID_ARGUMENT"
            assert not isinstance(outcome, Prediction)
            assert outcome.code.name == expected
            continue
        assert isinstance(outcome, Prediction)
        (direct,) = models[query.model_id].predict([query])
        assert isinstance(direct, Prediction)
        assert (outcome.model_id, outcome.label) == (query.model_id, direct.label)
