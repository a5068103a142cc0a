"""Thresholds and explanations as callers see them: grpcurl and the Python client, through real services."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from predictor.model.loader import FileLimits, Loader
from predictor.model.tokenizer import Tokenizer
from serving.client import AsyncIntentClient, IntentClient, Prediction, Query
from serving.domain.errors import InvalidRequest, ModelNotFound, ServingError
from serving.domain.model_id import ModelId
from serving.volume.model_store import ModelStore
from tests.end_to_end.processes import grpcurl, running_service, stack, transports

TOKENIZER = "basic_english+words:2+characters:2-4"
TEXTS = ["make a timer", "set the alarm", "what is my balance", "a red balance"]
LABELS = ["timer", "alarm", "balance", "oos"]
PREDICT = "prediction.PredictionService/Predict"
BATCH = "prediction.PredictionService/PredictBatch"
EXPLAIN = "prediction.PredictionService/Explain"


def write_model(folder: Path, tokenizer: str, **keys: object) -> None:
    """Write a model of words, and of n-grams if the tokenizer has them, with random weights."""
    folder.mkdir(parents=True)
    written = Tokenizer.parse(tokenizer)
    tokens = {"<unk>": None}
    for text in TEXTS:
        words = written.tokens(text)
        tokens |= dict.fromkeys((*words, *written.ngrams(words)))
    generator = torch.Generator().manual_seed(3)
    shapes = {"embedding.weight": (len(tokens), 8), "fc1.weight": (6, 8), "fc1.bias": (6,)}
    shapes |= {"fc2.weight": (len(LABELS), 6), "fc2.bias": (len(LABELS),)}
    weights = {name: torch.randn(*shape, generator=generator) / 2 for name, shape in shapes.items()}
    torch.save(weights, folder / "model.pth")
    torch.save({token: index for index, token in enumerate(tokens)}, folder / "vocab.pth")
    manifest = {
        "Algorithm": "intent-classification",
        "ModelVersion": "1.0",
        "Tokenizer": tokenizer,
        "classes": {str(index): label for index, label in enumerate(LABELS)},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | keys))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "words", "basic_english")
    write_model(folder / "ngrams", TOKENIZER, Confidence={"temperature": 1.7})
    write_model(folder / "doubtful", "basic_english", Confidence={"threshold": 0.999, "fallback": "nothing"})
    return folder


@pytest.fixture(scope="module", params=["two processes", "one process"])
def arrangement(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=transports())
def address(
    request: pytest.FixtureRequest, arrangement: str, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Address of a frontend, on each transport."""
    logs = tmp_path_factory.mktemp("logs")
    if arrangement == "one process":
        with running_service("model_service", models, logs, transport=request.param) as service:
            yield service.address
    else:
        with stack(models, logs, transport=request.param) as running:
            yield running.frontend.address


def call(address: str, method: str, request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = [grpcurl(), "-plaintext", "-d", json.dumps(request), address, method]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def answer(address: str, method: str, **request: Any) -> Any:
    called = call(address, method, request)
    assert called.returncode == 0, called.stderr
    return json.loads(called.stdout)


def logits_of(models: Path, model_id: str, document: str) -> dict[str, float]:
    loader = Loader(ModelStore(models), FileLimits())
    model = loader.load(ModelId(model_id), loader.fingerprint(ModelId(model_id)))
    return dict(zip(model.labels, model.logits([document])[0].astype(np.float64).tolist(), strict=True))


def assert_adds_up(explanation: Any, logits: dict[str, float]) -> None:
    for part in explanation["labels"]:
        contributions = part.get("contributions", [])
        assert len(contributions) == len(explanation.get("tokens", []))
        assert math.fsum((part["bias"], *contributions)) == pytest.approx(part["logit"], abs=1e-12)
        assert part["logit"] == pytest.approx(logits[part["label"]], abs=1e-5)


@pytest.mark.parametrize("model_id", ["words", "ngrams"])
def test_grpcurl_gets_an_explanation_that_adds_up(address: str, models: Path, model_id: str) -> None:
    document = "Make a red zzyzx timer"
    told = answer(address, EXPLAIN, runId=model_id, document=document, labels=["alarm", "oos"])

    explanation = told["explanation"]
    assert explanation["tokens"][:5] == ["make", "a", "red", "zzyzx", "timer"]
    assert explanation["unknown"] == [3]
    assert (len(explanation["tokens"]) > 5) == (model_id == "ngrams")
    assert explanation["labels"][0]["label"] == told["label"]
    assert {"alarm", "oos"} <= {part["label"] for part in explanation["labels"]}
    assert explanation["temperature"] == (1.7 if model_id == "ngrams" else 1)
    assert told["model"] == {"id": model_id, "version": "1.0"}
    assert_adds_up(explanation, logits_of(models, model_id, document))


def test_grpcurl_gets_the_same_explanation_with_a_prediction_and_without_asking_none(address: str) -> None:
    request = {"runId": "ngrams", "document": "set a timer"}
    told = answer(address, EXPLAIN, **request, labels=["oos"])
    predicted = answer(address, PREDICT, **request, explain=True, explain_labels=["oos"], k=2)
    plain = answer(address, PREDICT, **request, explain_labels=["oos"])

    assert predicted["explanation"] == told["explanation"]
    assert (
        (predicted["label"], predicted["score"]) == (told["label"], told["score"]) == (plain["label"], plain["score"])
    )
    assert json.loads(predicted["response"]) == {"result": predicted["label"]}
    assert len(predicted["best"]) == 2
    assert plain.keys() == {"response", "label", "score", "model"}


def test_a_threshold_turns_an_answer_into_the_fallback_label(address: str) -> None:
    request = {"runId": "words", "document": "what is my balance"}
    plain = answer(address, PREDICT, **request, k=4)
    fell_back = answer(address, PREDICT, **request, threshold=1, k=4)
    kept = answer(address, PREDICT, **request, threshold=0)

    assert "fallback" not in plain | kept
    assert fell_back["label"] == "oos"
    assert json.loads(fell_back["response"]) == {"result": "oos"}
    assert fell_back["fallback"] == {"best_label": plain["label"], "best_score": plain["score"], "threshold": 1}
    assert fell_back["best"] == plain["best"]
    assert fell_back["score"] == next(best["score"] for best in plain["best"] if best["label"] == "oos")


def test_the_threshold_of_the_manifest_holds_until_a_caller_brings_another(address: str) -> None:
    request = {"runId": "doubtful", "document": "what is my balance"}
    fell_back = answer(address, PREDICT, **request)
    believed = answer(address, PREDICT, **request, threshold=0.05)
    explained = answer(address, EXPLAIN, **request)

    assert (fell_back["label"], fell_back.get("score", 0)) == ("nothing", 0)
    assert fell_back["fallback"]["threshold"] == 0.999
    assert believed["label"] == fell_back["fallback"]["best_label"]
    assert "fallback" not in believed
    # The explanation is of the best label, not of the fallback.
    assert explained["label"] == "nothing"
    assert explained["explanation"]["labels"][0]["label"] == explained["fallback"]["best_label"]


def test_each_request_of_a_batch_has_what_it_asked_for(address: str, models: Path) -> None:
    document = "make a timer"
    requests = [
        {"runId": "words", "document": document},
        {"runId": "ngrams", "document": document, "explain": True},
        {"runId": "doubtful", "document": document},
        {"runId": "words", "document": document, "threshold": 1, "explain": True, "explain_labels": ["alarm"]},
        {"runId": "words", "document": document, "explain": True, "explain_labels": ["no such label"]},
        {"runId": "words", "document": document, "threshold": 2},
        {"runId": "no-such-model", "document": document, "explain": True},
    ]
    results = answer(address, BATCH, requests=requests)["results"]

    plain, with_reasons, doubted, both, no_label, no_share, no_model = (
        result.get("response", result.get("status")) for result in results
    )
    assert plain.keys() == {"response", "label", "score", "model"}
    assert_adds_up(with_reasons["explanation"], logits_of(models, "ngrams", document))
    assert doubted["label"] == "nothing"
    assert both["fallback"]["best_label"] == both["explanation"]["labels"][0]["label"]
    assert_adds_up(both["explanation"], logits_of(models, "words", document))
    assert [status["code"] for status in (no_label, no_share, no_model)] == [3, 3, 5]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"runId": "words", "document": "x", "labels": ["no such label"]}, "InvalidArgument"),
        ({"runId": "words", "document": "x", "threshold": -0.5}, "InvalidArgument"),
        ({"runId": "words", "document": "x", "threshold": "NaN"}, "InvalidArgument"),
        ({"runId": "words", "document": "x", "labels": ["oos"] * 257}, "InvalidArgument"),
        ({"runId": "words", "document": "a " * 30_000, "labels": ["oos"]}, "InvalidArgument"),
        ({"runId": "../words", "document": "x"}, "InvalidArgument"),
        ({"runId": "no-such-model", "document": "x"}, "NotFound"),
    ],
    ids=["label", "threshold", "nan", "labels", "long", "bad-id", "unknown"],
)
def test_what_cannot_be_explained_is_refused_with_what_to_do(address: str, request_: dict[str, Any], code: str) -> None:
    refused = call(address, EXPLAIN, request_)
    assert refused.returncode != 0
    assert f"Code: {code}" in refused.stderr


def test_an_empty_document_is_explained_by_its_bias(address: str) -> None:
    with IntentClient(address, timeout=60) as client:
        told = client.explain("ngrams", "").explanation
    assert told is not None
    assert (told.tokens, told.labels[0].contributions) == ((), ())
    assert told.labels[0].logit == told.labels[0].bias


def test_a_long_document_is_explained_whole(address: str) -> None:
    document = "timer zzyzx " * 1500
    with IntentClient(address, timeout=60) as client:
        told = client.explain("ngrams", document).explanation
    assert told is not None
    assert told.tokens[:2] == ("timer", "zzyzx")
    assert len(told.unknown) == 1500
    assert math.fsum((told.labels[0].bias, *told.labels[0].contributions)) == pytest.approx(
        told.labels[0].logit, abs=1e-12
    )


async def test_callers_at_the_same_time_each_get_what_they_asked_for(address: str) -> None:
    """The queries reach the engine in batches, and some of them ask for too much to share a batch."""
    queries = [
        Query(
            ("words", "ngrams", "doubtful", "no-such-model")[number % 4],
            f"make a {'red ' * (number % 50)}timer",
            1 << 20 if number % 7 == 0 else 0,
            (None, 0.0, 1.0)[number % 3],
            (None, (), ("alarm",) * 200, ("no such label",))[number % 5 % 4],
        )
        for number in range(400)
    ]
    async with AsyncIntentClient(address, timeout=60) as client:
        alone = {query: await _outcome(client, query) for query in dict.fromkeys(queries[:40])}
        together = await asyncio.gather(*(_outcome(client, query) for query in queries))
    for query, outcome in zip(queries, together, strict=True):
        if query.model_id == "no-such-model":
            assert isinstance(outcome, ModelNotFound)
        elif query.explain == ("no such label",):
            assert isinstance(outcome, InvalidRequest)
        else:
            assert isinstance(outcome, Prediction), outcome
            assert (outcome.explanation is None) == (query.explain is None)
            assert len(outcome.best) == (len(LABELS) if query.k else 0)
            of_manifest = 0.999 if query.model_id == "doubtful" else 0.0
            least = of_manifest if query.threshold is None else query.threshold
            if outcome.fallback is None:
                assert outcome.label == "oos" or outcome.score >= least
            else:
                assert outcome.label == ("nothing" if query.model_id == "doubtful" else "oos")
                assert outcome.fallback.best.score < least == outcome.fallback.threshold
        if query in alone and isinstance(outcome, Prediction):
            before = alone[query]
            assert isinstance(before, Prediction)
            assert before.explanation == outcome.explanation
            assert before.label == outcome.label


async def _outcome(client: AsyncIntentClient, query: Query) -> Prediction | ServingError:
    try:
        return await client.predict(
            query.model_id, query.document, k=query.k, threshold=query.threshold, explain=query.explain
        )
    except ServingError as error:
        return error
