"""Faults of a pipeline's models and engines, in real processes: the answers to its callers, and to others."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from serving.client import IntentClient, Prediction, Query
from serving.domain.errors import DeadlineExceeded, ModelUnusable, ServingError, Unavailable
from serving.domain.prediction import Onward
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from tests.builders import PATIENCE, publish, reseal
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, start
from tests.end_to_end.test_uploads import eventually

pytestmark = pytest.mark.slow

SAMPLE: Final = ROOT / "models" / "clinc150-banking"
DOCUMENT: Final = "what is my balance"
LABEL: Final = "balance"
OTHER: Final = "intent-classification-torch"
"""Algorithm that the frontend routes to the second predictor."""
HURRY: Final = 1.0
"""Deadline of callers who ask an engine that hangs, in seconds."""
IN_FLIGHT: Final = 100

PIPELINES: Final[Mapping[str, Mapping[str, Any]]] = {
    "guarded": {"first": {"ask": "frail", "within": 0.3, "otherwise": "sound"}},
    "patient": {"first": {"ask": "frail", "otherwise": "sound"}},
    "unguarded": {"first": {"ask": "frail"}},
    "voting": {"first": {"ask": ["frail", "sound"], "vote": "mean", "otherwise": "sound"}},
    "second-step": {"first": {"ask": "sound", "route": {LABEL: "frail"}, "otherwise": "sound"}},
}


@dataclass
class Engines:
    """A frontend before two predictors: one has the model ``sound``, the other one ``frail``."""

    volume: Path
    frontend: Service
    sound: Service
    frail: Service

    def pipeline(self, model_id: str, steps: Mapping[str, Any]) -> None:
        """Put a pipeline on the volume."""
        pipeline(self.volume, model_id, steps)


def pipeline(volume: Path, model_id: str, steps: Mapping[str, Any]) -> None:
    publish(volume, model_id, files={}, Algorithm="pipeline", classes={}, Start="first", Steps=steps)


def put(volume: Path, model_id: str, algorithm: str = "intent-classification") -> None:
    """Put a copy of the sample model on the volume, in one step."""
    staged = volume / f".{model_id}"
    shutil.copytree(SAMPLE, staged)
    manifest = json.loads((staged / "manifest.json").read_text())
    (staged / "manifest.json").write_text(json.dumps(manifest | {"Algorithm": algorithm}))
    reseal(staged)
    staged.rename(volume / model_id)


@pytest.fixture
def engines(volume: Path, tmp_path: Path) -> Iterator[Engines]:
    put(volume, "sound")
    put(volume, "frail", OTHER)
    for model_id, steps in PIPELINES.items():
        pipeline(volume, model_id, steps)
    started: list[Service] = []
    try:
        started.extend(start("predictor", volume, tmp_path) for _ in range(2))
        sound, frail = started
        routes = f"intent-classification=predictor://{sound.address},{OTHER}=predictor://{frail.address}"
        started.append(start("frontend", volume, tmp_path, "--routes", routes, "--tenant-in-flight", str(IN_FLIGHT)))
        for service in started:
            service.wait_until_serving()
        yield Engines(volume, started[-1], sound, frail)
    finally:
        for service in reversed(started):
            service.kill()


@pytest.fixture
def client(engines: Engines) -> Iterator[IntentClient]:
    with IntentClient(engines.frontend.address, timeout=PATIENCE) as made:
        for model_id in ("sound", "frail"):
            assert made.predict(model_id, DOCUMENT).label == LABEL
        yield made


def ways(answer: Prediction) -> list[tuple[str, Onward]]:
    return [(step.name, step.onward) for step in answer.path]


def failed_to(answer: Prediction) -> tuple[str, Onward, str]:
    """Return the first step, which did not answer, and the one that answered instead."""
    first, last = answer.path
    assert (answer.label, last.onward) == (LABEL, Onward.ANSWERED)
    return first.name, first.onward, last.name


def test_an_engine_that_is_down_is_passed_over_or_named(engines: Engines, client: IntentClient) -> None:
    engines.frail.kill()
    assert failed_to(client.predict("patient", DOCUMENT)) == ("first", Onward.FAILED, "sound")
    assert client.predict("patient", DOCUMENT).path[0].code is grpc.StatusCode.UNAVAILABLE
    assert failed_to(client.predict("voting", DOCUMENT)) == ("first", Onward.FAILED, "sound")
    assert client.predict("guarded", DOCUMENT).label == LABEL
    for model_id, step in (("unguarded", "first"), ("second-step", "frail")):
        with pytest.raises(Unavailable, match=f'step "{step}" of {model_id}: '):
            client.predict(model_id, DOCUMENT)
    batch = client.predict_batch([Query(model_id, DOCUMENT) for model_id in ("patient", "unguarded", "sound")])
    assert [isinstance(outcome, Prediction) for outcome in batch] == [True, False, True]


def test_an_engine_that_hangs_costs_no_more_than_the_time_that_it_is_given(
    engines: Engines, client: IntentClient
) -> None:
    engines.frail.signal_all(signal.SIGSTOP)
    assert failed_to(client.predict("guarded", DOCUMENT)) == ("first", Onward.LATE, "sound")
    with IntentClient(engines.frontend.address, timeout=HURRY) as hurried:
        for model_id in ("unguarded", "second-step"):
            # The frontend closes a connection on which nothing is heard for a while.
            with pytest.raises((DeadlineExceeded, Unavailable)):
                hurried.predict(model_id, DOCUMENT)
    assert client.predict("guarded", DOCUMENT).label == LABEL
    engines.frail.signal_all(signal.SIGCONT)
    eventually(lambda: ways(client.predict("guarded", DOCUMENT)) == [("first", Onward.ANSWERED)])


def test_an_engine_that_is_slow_answers_those_who_wait(engines: Engines, client: IntentClient) -> None:
    engines.frail.signal_all(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.predict, "unguarded", DOCUMENT)
        assert failed_to(client.predict("guarded", DOCUMENT)) == ("first", Onward.LATE, "sound")
        engines.frail.signal_all(signal.SIGCONT)
        assert ways(asked.result()) == [("first", Onward.ANSWERED)]


def test_nobody_else_waits_for_an_engine_that_hangs_and_callers_that_leave_leave_nothing_behind(
    engines: Engines, client: IntentClient
) -> None:
    engines.frail.signal_all(signal.SIGSTOP)
    with grpc.insecure_channel(engines.frontend.address) as channel:
        stub: Any = pb_grpc.PredictionServiceStub(channel)

        def ask(model_id: str) -> list[Any]:
            request = pb.PredictRequest(runId=model_id, document=DOCUMENT)
            return [stub.Predict.future(request, timeout=PATIENCE) for _ in range(IN_FLIGHT)]

        hanging = ask("unguarded")
        with IntentClient(engines.frontend.address, timeout=5 * HURRY) as hurried:
            for _ in range(IN_FLIGHT):
                assert hurried.predict("sound", DOCUMENT).label == LABEL
            outcomes = hurried.predict_batch([Query("sound", DOCUMENT)] * IN_FLIGHT)
            assert all(isinstance(outcome, Prediction) for outcome in outcomes)
            assert hurried.predict("guarded", DOCUMENT).label == LABEL
        for call in hanging:
            call.cancel()
        engines.frail.signal_all(signal.SIGCONT)
        eventually(lambda: refusal_of(client, "unguarded") is None)
        # One slot that is still taken would refuse one of these calls.
        eventually(lambda: {call.code() for call in ask("unguarded")} == {grpc.StatusCode.OK})


def test_a_model_that_is_deleted_later_is_passed_over_or_named_until_it_is_back(
    engines: Engines, client: IntentClient
) -> None:
    shutil.rmtree(engines.volume / "frail")
    eventually(lambda: len(client.predict("patient", DOCUMENT).path) == 2)
    assert failed_to(client.predict("patient", DOCUMENT)) == ("first", Onward.FAILED, "sound")
    for model_id, step in (("unguarded", "first"), ("second-step", "frail")):
        with pytest.raises(ModelUnusable, match=f'step "{step}" of {model_id}: .*frail'):
            client.predict(model_id, DOCUMENT)

    put(engines.volume, "frail", OTHER)
    eventually(lambda: ways(client.predict("patient", DOCUMENT)) == [("first", Onward.ANSWERED)])
    assert client.predict("unguarded", DOCUMENT).label == LABEL


def test_pipelines_that_lead_in_a_circle_later_are_named(engines: Engines, client: IntentClient) -> None:
    engines.pipeline("inner", {"first": {"ask": "sound"}})
    engines.pipeline("outer", {"first": {"ask": "inner"}})
    assert client.predict("outer", DOCUMENT).label == LABEL

    engines.pipeline("inner", {"first": {"ask": "outer"}})
    eventually(lambda: refusal_of(client, "outer") is not None)
    told = str(refusal_of(client, "outer"))
    assert "outer -> inner -> outer" in told
    assert isinstance(refusal_of(client, "inner"), ModelUnusable)
    assert client.predict("sound", DOCUMENT).label == LABEL

    engines.pipeline("inner", {"first": {"ask": "frail"}})
    eventually(lambda: refusal_of(client, "outer") is None)


def refusal_of(client: IntentClient, model_id: str) -> ServingError | None:
    try:
        client.predict(model_id, DOCUMENT)
    except ServingError as error:
        return error
    return None


def test_a_vote_over_two_engines_is_that_of_their_answers(engines: Engines, client: IntentClient) -> None:
    documents = [DOCUMENT, "freeze my account", "how do i order checks", "xyzzy", ""]
    together = client.predict_batch([Query("voting", document, k=16) for document in documents])
    for document, outcome in zip(documents, together, strict=True):
        frail, sound = (client.predict(model_id, document, k=16) for model_id in ("frail", "sound"))
        assert isinstance(outcome, Prediction)
        wanted = {label: (dict(frail.best)[label] + score) / 2 for label, score in sound.best}
        assert dict(outcome.best) == pytest.approx(wanted, abs=1e-6)
        assert [model.model_id for model in outcome.path[0].models] == ["frail", "sound"]
