"""The log lines of calls, as real processes write them."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.telemetry.call_log import MOST_CHARACTERS
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, Stack, stack, transports

MODEL = "clinc150-banking"
MARK = "zzyzxqwv"
DOCUMENT = f"what is my balance {MARK}"


@dataclass
class Logged:
    """Both services: the frontend logs failed calls, its default; the predictor logs all calls and their documents."""

    running: Stack
    transport: str


@pytest.fixture(scope="module", params=transports())
def logged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    folder = tmp_path_factory.mktemp("call-logs")
    shutil.copytree(ROOT / "models" / MODEL, folder / "models" / MODEL)
    telling = ("--log-calls", "all", "--log-documents")
    with stack(folder / "models", folder, predictor=telling, transport=request.param) as running:
        yield Logged(running, request.param)


def calls(service: Service, request_id: str) -> list[dict[str, Any]]:
    return [event for event in service.events() if event["event"] == "call" and event.get("request_id") == request_id]


def ask(running: Stack, method: str, request: Any, request_id: str) -> grpc.StatusCode:
    with grpc.insecure_channel(running.frontend.address) as channel:
        stub: Any = pb_grpc.PredictionServiceStub(channel)
        try:
            getattr(stub, method)(request, metadata=(("x-request-id", request_id),), timeout=30)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK


def test_by_itself_a_service_tells_failed_calls_and_no_document(logged: Logged) -> None:
    running = logged.running
    assert ask(running, "Predict", pb.PredictRequest(runId=MODEL, document=DOCUMENT), "well") is grpc.StatusCode.OK
    for model, request_id in (("no-such-model", "unknown"), (f"../{MARK}\n", "bad-id")):
        ask(running, "Predict", pb.PredictRequest(runId=model, document=DOCUMENT), request_id)
    ask(running, "Predict", pb.PredictRequest(runId=MODEL, document=DOCUMENT * 10_000), "long")
    assert calls(running.frontend, "well") == []
    (unknown,) = calls(running.frontend, "unknown")
    assert unknown["level"] == "info"
    assert (unknown["method"], unknown["code"]) == ("prediction.PredictionService/Predict", "NOT_FOUND")
    assert (unknown["model"], unknown["message"]) == (
        "no-such-model",
        "no model has the runId no-such-model; `intentctl models` lists the models, and `intentctl publish` adds one",
    )
    assert 0 < unknown["seconds"] < 60
    assert "trace_id" not in unknown
    (bad,) = calls(running.frontend, "bad-id")
    assert bad["code"] == "INVALID_ARGUMENT"
    assert "model" not in bad
    (long,) = calls(running.frontend, "long")
    assert (long["code"], long["model"]) == ("INVALID_ARGUMENT", MODEL)
    assert MARK not in running.frontend.log.read_text()


def test_a_text_that_cannot_be_read_or_sent_on_is_not_in_the_log(logged: Logged) -> None:
    with grpc.insecure_channel(logged.running.frontend.address) as channel:
        ask_raw: Any = channel.unary_unary("/prediction.PredictionService/Predict")
        damaged = pb.PredictRequest(runId=MODEL, document=DOCUMENT).SerializeToString().replace(b"my", b"\xff\xfe")
        with pytest.raises(grpc.RpcError) as refused:
            ask_raw(damaged, metadata=(("x-request-id", "damaged"),), timeout=30)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    (line,) = calls(logged.running.frontend, "damaged")
    assert line["code"] == "INVALID_ARGUMENT"

    if logged.transport == "http2":
        text = f"{MARK} \ud800"
        body = json.dumps({"inputs": [{"name": "document", "datatype": "BYTES", "shape": [1], "data": [text]}]})
        url = f"http://{logged.running.frontend.address}/v2/models/{MODEL}/infer"
        request = urllib.request.Request(url, body.encode(), {"x-request-id": "lone-surrogate"})
        with pytest.raises(urllib.error.HTTPError) as answer:
            urllib.request.urlopen(request, timeout=30)  # noqa: S310 - a URL of this test
        assert answer.value.code == 400
        (line,) = calls(logged.running.frontend, "lone-surrogate")
        assert line["code"] == "INVALID_ARGUMENT"
    assert MARK not in logged.running.frontend.log.read_text()


def test_all_calls_with_their_documents_are_told_where_it_is_asked_for(logged: Logged) -> None:
    text = f"{DOCUMENT}\n{'x' * 1000}"
    ask(logged.running, "Predict", pb.PredictRequest(runId=MODEL, document=text), "told")
    # Either call may have answered: the batch for models in memory, or the call for this query alone.
    lines = calls(logged.running.predictor, "told")
    assert lines
    for line in lines:
        assert (line["code"], line["model"], line["service"]) == ("OK", MODEL, "predictor")
        assert line["documents"] == [text[:MOST_CHARACTERS]]
        assert MARK in line["documents"][0]
    assert calls(logged.running.frontend, "told") == []


def test_a_batch_tells_its_numbers(logged: Logged) -> None:
    batch = pb.PredictBatchRequest(
        requests=[pb.PredictRequest(runId=MODEL, document=f"{DOCUMENT} {number}") for number in range(20)]
    )
    ask(logged.running, "PredictBatch", batch, "batch")
    (line,) = calls(logged.running.predictor, "batch")
    assert (line["method"], line["model"]) == ("prediction.Predictor/PredictorPredictBatch", MODEL)
    assert (line["queries"], line["failed"], len(line["documents"])) == (20, 0, 16)


@pytest.mark.parametrize("transport", transports())
def test_none_is_told_where_none_is_asked_for(transport: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "models" / MODEL, tmp_path / "models" / MODEL)
    silent = ("--log-calls", "none")
    with stack(tmp_path / "models", tmp_path, frontend=silent, predictor=silent, transport=transport) as running:
        ask(running, "Predict", pb.PredictRequest(runId="no-such-model", document=DOCUMENT), "a")
        ask(running, "Predict", pb.PredictRequest(runId=MODEL, document=DOCUMENT), "b")
        for service in (running.frontend, running.predictor):
            assert service.stop() == 0
            assert not [event for event in service.events() if event["event"] == "call"]
