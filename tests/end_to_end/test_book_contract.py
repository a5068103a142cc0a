"""Guarantees that clients of the book's sample service rely on, tested with the book's own model and tools."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from serving.client import IntentClient, Prediction, Query
from tests.conftest import shared
from tests.end_to_end.processes import Stack, grpcurl, stack, transports


def call(running: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [grpcurl(), "-plaintext", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def predict(running: Stack, **request: Any) -> subprocess.CompletedProcess[str]:
    method = "prediction.PredictionService/Predict"
    return call(running, "-d", json.dumps(request), running.frontend.address, method)


@pytest.fixture(scope="module", params=transports())
def seed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The seed's model, copied into the folder of running services, on each transport."""
    models = tmp_path_factory.mktemp("models")
    with stack(models, tmp_path_factory.mktemp("logs"), transport=request.param) as running:
        shutil.copytree(shared("seed-model/1"), models / "1")
        yield running


def test_the_books_call_answers_timer(seed: Stack) -> None:
    answer = predict(seed, runId="1", document="make a 10 minute timer")

    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["response"] == '{"result": "timer"}'


def test_the_predictor_answers_the_books_call_too(seed: Stack) -> None:
    question = json.dumps({"runId": "1", "document": "make a 10 minute timer"})
    answer = call(seed, "-d", question, seed.predictor.address, "prediction.Predictor/PredictorPredict")

    assert json.loads(answer.stdout)["response"] == '{"result": "timer"}'


def test_an_unknown_model_is_not_found(seed: Stack) -> None:
    answer = predict(seed, runId="no-such-model", document="hello")

    assert answer.returncode != 0
    assert "Code: NotFound" in answer.stderr


def test_an_algorithm_without_a_route_is_a_failed_precondition(seed: Stack) -> None:
    folder = seed.models / "foreign"
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text('{"Algorithm": "image-segmentation", "classes": {"0": "cat"}}')

    answer = predict(seed, runId="foreign", document="hello")

    assert "Code: FailedPrecondition" in answer.stderr


def test_reflection_and_health_need_no_proto(seed: Stack) -> None:
    listed = call(seed, seed.frontend.address, "list").stdout.split()
    described = call(seed, seed.frontend.address, "describe", "prediction.PredictRequest").stdout
    health = call(seed, seed.frontend.address, "grpc.health.v1.Health/Check").stdout

    assert {"prediction.PredictionService", "grpc.health.v1.Health"} <= set(listed)
    assert "string runId = 3;" in described
    assert "string document = 4;" in described
    assert json.loads(health) == {"status": "SERVING"}


def test_all_clinc150_test_rows_through_the_pair_are_as_right_as_recorded(
    seed: Stack, figure: Callable[[str], None]
) -> None:
    data = json.loads(shared("datasets/clinc150/data_full.json").read_text())
    rows = data["test"] + data["oos_test"]

    with IntentClient(seed.frontend.address, timeout=60) as client:
        outcomes = [
            outcome
            for start in range(0, len(rows), 500)
            for outcome in client.predict_batch(Query("1", text) for text, _ in rows[start : start + 500])
        ]

    right = sum(
        isinstance(outcome, Prediction) and outcome.label == label
        for outcome, (_, label) in zip(outcomes, rows, strict=True)
    )
    figure(f"right answers: {right} of {len(rows)}")
    assert len(rows) == 5500
    assert right == 2465
