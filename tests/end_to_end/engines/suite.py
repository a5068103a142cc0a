"""What a caller of the frontend relies on, whichever engine serves the model: the tests of every module of engines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import grpc
import pytest

from predictor.loader import FileLimits, Loader
from serving.client import AsyncIntentClient, IntentClient, Prediction, Query
from serving.errors import DeadlineExceeded, InvalidRequest, ServingError, Unavailable
from serving.model_id import parse_model_id
from serving.model_store import ModelStore
from tests.builders import PATIENCE
from tests.conftest import ROOT, shared
from tests.end_to_end.engines.engines import DOCUMENT, LABEL, SAMPLE, Engine, Fleet, answer_when_reached

CALLERS = 32
ROWS = 500
LIMIT = 1 << 16


class EngineSuite:
    """A module that takes these tests has two fixtures: ``engines``, a fleet, and ``engine``, one of it."""

    async def test_many_callers_get_the_answers_of_the_model_itself(self, engines: Fleet, engine: Engine) -> None:
        documents = clinc150_documents()
        async with AsyncIntentClient(engines.frontend.address, timeout=2 * PATIENCE) as client:
            for model in engine.models:
                shares = [documents[caller::CALLERS] for caller in range(CALLERS)]
                answered = await asyncio.gather(*(one_by_one(client, model, share) for share in shares))

                for share, answers in zip(shares, answered, strict=True):
                    assert_answered(answers, share, model)

    def test_a_batch_gets_the_answers_of_the_model_itself(self, client: IntentClient, engine: Engine) -> None:
        documents = clinc150_documents()
        for model in engine.models:
            outcomes = client.predict_batch([Query(model, document) for document in documents])

            assert_answered([answer for answer in outcomes if isinstance(answer, Prediction)], documents, model)

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
    """Rows of CLINC150's test set, of every label."""
    rows = json.loads(shared("datasets/clinc150/data_full.json").read_text())["test"]
    documents = [document for document, _ in rows[:: len(rows) // ROWS]]
    assert len(documents) == ROWS
    return documents


async def one_by_one(client: AsyncIntentClient, model: str, documents: Sequence[str]) -> list[Prediction]:
    return [await client.predict(model, document) for document in documents]


def assert_answered(answers: Sequence[Prediction], documents: Sequence[str], model: str) -> None:
    """What an engine answers is what the sample model says where it is loaded directly."""
    loader, model_id = Loader(ModelStore(ROOT / "models"), FileLimits()), parse_model_id(SAMPLE)
    sample = loader.load(model_id, loader.fingerprint(model_id))
    direct = sample.predict([Query(model_id, document) for document in documents])
    assert {answer.model_id for answer in answers} == {model}
    for answer, expected in zip(answers, direct, strict=True):
        assert isinstance(expected, Prediction)
        assert answer.label == expected.label
        assert answer.score == pytest.approx(expected.score, abs=1e-4)
