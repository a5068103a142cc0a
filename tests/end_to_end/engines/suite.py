"""Guarantees for callers of the frontend, whichever engine serves the model: the tests of every engine module."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence

import grpc
import pytest

from predictor.model.intent_model import IntentModel
from predictor.model.loader import FileLimits, Loader
from serving.client import AsyncIntentClient, IntentClient, Outcome, Prediction, Query
from serving.domain.errors import DeadlineExceeded, InvalidRequest, ModelUnusable, ServingError, Unavailable
from serving.domain.model_id import parse_model_id
from serving.volume.model_store import ModelStore
from tests.builders import PATIENCE
from tests.conftest import shared
from tests.end_to_end.engines.engines import DOCUMENT, LABEL, SAMPLE, Engine, Fleet, answer_when_reached

CALLERS = 32
ROWS = 500
LIMIT = 1 << 16


class EngineSuite:
    """Tests for a module that provides two fixtures: ``engines``, a fleet, and ``engine``, one engine of it."""

    async def test_many_callers_get_the_answers_of_the_model_itself(self, engines: Fleet, engine: Engine) -> None:
        documents = clinc150_documents()
        async with AsyncIntentClient(engines.frontend.address, timeout=2 * PATIENCE) as client:
            for model in engine.models:
                shares = [documents[caller::CALLERS] for caller in range(CALLERS)]
                answered = await asyncio.gather(*(one_by_one(client, model, share) for share in shares))

                for share, answers in zip(shares, answered, strict=True):
                    assert_answered(answers, [Query(model, document) for document in share], engines)

    @pytest.mark.parametrize("threshold", [None, 0.0, 0.9])
    def test_a_batch_gets_the_answers_of_the_model_itself_at_every_threshold(
        self, client: IntentClient, engines: Fleet, engine: Engine, threshold: float | None
    ) -> None:
        for model in engine.models:
            queries = [Query(model, document, 0, threshold) for document in clinc150_documents()]

            answers = client.predict_batch(queries)

            assert_answered(answers, queries, engines)
            fell_back = [isinstance(answer, Prediction) and answer.fallback is not None for answer in answers]
            assert any(fell_back) == (threshold != 0.0)
            assert not all(fell_back)

    def test_an_explanation_is_that_of_the_model_itself_or_there_is_none(
        self, client: IntentClient, engines: Fleet, engine: Engine
    ) -> None:
        documents = [DOCUMENT, "flip a coin now", "xyzzy", ""]
        direct = sample_model(engines).predict([Query(SAMPLE, text, explain=("oos",)) for text in documents])
        for model in engine.models:
            if not engine.explains:
                with pytest.raises(ModelUnusable, match="explain"):
                    client.explain(model, DOCUMENT)
                assert client.predict(model, DOCUMENT).label == LABEL
                continue
            alone = [client.explain(model, text, ["oos"]) for text in documents]
            together = client.predict_batch([Query(model, text, explain=("oos",)) for text in documents])
            for answers in (alone, together):
                for answer, expected in zip(answers, direct, strict=True):
                    assert_explained(answer, expected)
            with pytest.raises(InvalidRequest, match="label"):
                client.explain(model, DOCUMENT, ["no such label"])

    def test_what_cannot_be_answered_has_the_code_that_it_has_at_every_engine(
        self, client: IntentClient, engine: Engine
    ) -> None:
        for model in engine.models:
            for wrong, code in (
                (Query("no-such-model", DOCUMENT), grpc.StatusCode.NOT_FOUND),
                (Query(engine.absent, DOCUMENT), grpc.StatusCode.FAILED_PRECONDITION),
                (Query("../etc", DOCUMENT), grpc.StatusCode.INVALID_ARGUMENT),
                (Query(model, "a" * (LIMIT + 1)), grpc.StatusCode.INVALID_ARGUMENT),
            ):
                with pytest.raises(ServingError) as refusal:
                    client.predict(wrong.model_id, wrong.document)
                right, told = client.predict_batch([Query(model, DOCUMENT), wrong])

                assert isinstance(right, Prediction)
                assert isinstance(told, ServingError)
                assert (refusal.value.code, told.code) == (code, code), wrong.model_id

    def test_more_best_labels_than_there_are_is_all_that_the_engine_tells(
        self, client: IntentClient, engine: Engine
    ) -> None:
        for model in engine.models:
            answer = client.predict(model, DOCUMENT, k=(1 << 32) - 1)

            assert answer.label == answer.best[0].label == LABEL
            with pytest.raises(InvalidRequest, match="best labels"):
                client.predict_batch([Query(model, DOCUMENT, k=1000)] * 100)

    def test_an_engine_that_hangs_costs_its_own_callers_their_deadline(
        self, client: IntentClient, engines: Fleet, engine: Engine
    ) -> None:
        for model in engine.models:
            assert client.predict(model, DOCUMENT).label == LABEL
            with engine.paused():
                with pytest.raises(DeadlineExceeded):
                    client.predict(model, DOCUMENT, timeout=1)
                for other in models_of_others(engines, engine):
                    assert client.predict(other, DOCUMENT).label == LABEL

            assert client.predict(model, DOCUMENT).label == LABEL

    def test_an_engine_that_is_down_is_unavailable_alone_and_is_found_again(
        self, client: IntentClient, engines: Fleet, engine: Engine
    ) -> None:
        others = models_of_others(engines, engine)
        with engine.down():
            for model in engine.models:
                with pytest.raises(Unavailable):
                    client.predict(model, DOCUMENT)
            outcomes = client.predict_batch([Query(model, DOCUMENT) for model in (*engine.models, *others)])
            for outcome in outcomes[: len(engine.models)]:
                assert isinstance(outcome, Unavailable)
            for outcome, model in zip(outcomes[len(engine.models) :], others, strict=True):
                assert isinstance(outcome, Prediction)
                assert client.predict(model, DOCUMENT).label == outcome.label == LABEL

        for model in engine.models:
            assert answer_when_reached(client, model).label == LABEL


def models_of_others(engines: Fleet, engine: Engine) -> list[str]:
    others = [other for other in engines.engines.values() if other is not engine]
    assert others
    return [model for other in others for model in other.models]


def clinc150_documents() -> list[str]:
    """Return rows of CLINC150's test set, of every label."""
    rows = json.loads(shared("datasets/clinc150/data_full.json").read_text())["test"]
    documents = [document for document, _ in rows[:: len(rows) // ROWS]]
    assert len(documents) == ROWS
    return documents


async def one_by_one(client: AsyncIntentClient, model: str, documents: Sequence[str]) -> list[Prediction]:
    return [await client.predict(model, document) for document in documents]


def sample_model(engines: Fleet) -> IntentModel:
    """Return the model that all engines serve, loaded directly."""
    loader, model_id = Loader(ModelStore(engines.models), FileLimits()), parse_model_id(SAMPLE)
    return loader.load(model_id, loader.fingerprint(model_id))


def assert_answered(answers: Sequence[Outcome], queries: Sequence[Query], engines: Fleet) -> None:
    """Check that an engine answers as the sample model does when it is loaded directly."""
    direct = sample_model(engines).predict(queries)
    for answer, expected, query in zip(answers, direct, queries, strict=True):
        assert isinstance(expected, Prediction)
        assert isinstance(answer, Prediction)
        assert (answer.model_id, answer.label) == (query.model_id, expected.label)
        if expected.fallback is None:
            assert answer.fallback is None
            assert answer.score == pytest.approx(expected.score, abs=1e-4)
            continue
        assert answer.fallback is not None
        assert answer.fallback.best.label == expected.fallback.best.label
        assert answer.fallback.best.score == pytest.approx(expected.fallback.best.score, abs=1e-4)
        assert answer.fallback.threshold == pytest.approx(expected.fallback.threshold)
        # An engine that answers with one label reports nothing about the others.
        score = 0.0 if query.model_id.endswith("-labels") else expected.score
        assert answer.score == pytest.approx(score, abs=1e-4)


def assert_explained(answer: Outcome, expected: Outcome) -> None:
    """Check that an explanation has the same parts: equal tokens, and numbers that are equal up to rounding."""
    assert isinstance(answer, Prediction)
    assert isinstance(expected, Prediction)
    assert answer.explanation is not None
    assert expected.explanation is not None
    assert answer.label == expected.label
    assert answer.explanation._replace(labels=()) == expected.explanation._replace(labels=())
    for part, same in zip(answer.explanation.labels, expected.explanation.labels, strict=True):
        assert part.label == same.label
        assert part.contributions == pytest.approx(same.contributions, rel=1e-5, abs=1e-6)
        assert part.bias + math.fsum(part.contributions) == pytest.approx(part.logit, abs=1e-5)
