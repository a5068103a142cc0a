"""Traces of real processes: one trace through both, the same with every transport, and no traces unless requested."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.stubs import open_inference_pb2, open_inference_pb2_grpc
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from tests.builders import free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import Stack, running_service, stack, transports
from tests.fakes.trace_receiver import FakeTraceReceiver, ReceivedSpan, fake_trace_receiver
from tests.samples import copy_samples

MODEL = "clinc150-banking"
MARK = "zzyzxqwv"
DOCUMENT = f"what is my balance {MARK}"
PREDICT = "prediction.PredictionService/Predict"
PREDICT_BATCH = "prediction.Predictor/PredictorPredictBatch"
PREDICT_ALONE = "prediction.Predictor/PredictorPredict"


@dataclass(frozen=True)
class Caller:
    """A caller whose call is part of a trace."""

    trace: str
    span: str

    @classmethod
    def new(cls) -> Caller:
        return cls(secrets.token_hex(16), secrets.token_hex(8))

    def metadata(self, *, sampled: bool = True) -> Sequence[tuple[str, str]]:
        return (("traceparent", f"00-{self.trace}-{self.span}-{'01' if sampled else '00'}"), ("tracestate", "vendor=1"))


@dataclass
class Traced:
    """Both services, with the traces they send and the logs they write."""

    running: Stack
    receiver: FakeTraceReceiver
    transport: str

    def stub(self, channel: grpc.Channel) -> Any:
        return pb_grpc.PredictionServiceStub(channel)

    def predict(self, caller: Caller, model: str = MODEL, *, sampled: bool = True) -> None:
        with grpc.insecure_channel(self.running.frontend.address) as channel:
            request = pb.PredictRequest(runId=model, document=DOCUMENT)
            self.stub(channel).Predict(request, metadata=caller.metadata(sampled=sampled), timeout=30)


@pytest.fixture(scope="module", params=transports())
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    folder = tmp_path_factory.mktemp("traces")
    copy_samples(folder / "models")
    with fake_trace_receiver() as receiver:
        flags = ("--trace-endpoint", receiver.address, "--trace-share", "0", "--log-calls", "all")
        with stack(folder / "models", folder, frontend=flags, predictor=flags, transport=request.param) as running:
            yield Traced(running, receiver, request.param)


def named(spans: Sequence[ReceivedSpan], name: str, kind: str = "") -> ReceivedSpan:
    (found,) = [span for span in spans if span.name == name and kind in ("", span.kind)]
    return found


def test_a_call_is_one_trace_through_both_processes(traced: Traced) -> None:
    traced.predict(Caller.new())
    caller = Caller.new()
    traced.predict(caller)

    spans = traced.receiver.wait_for_trace(caller.trace, PREDICT, "queue", "batch", PREDICT_BATCH, "inference")
    call, queue, batch = (named(spans, name) for name in (PREDICT, "queue", "batch"))
    hop, served = named(spans, PREDICT_BATCH, "CLIENT"), named(spans, PREDICT_BATCH, "SERVER")
    inference = named(spans, "inference")

    assert {span.id: span.parent for span in spans} == {
        call.id: caller.span,
        queue.id: call.id,
        batch.id: call.id,
        hop.id: batch.id,
        served.id: hop.id,
        inference.id: served.id,
    }
    assert {span.name for span in spans if span.service == "predictor"} == {PREDICT_BATCH, "inference"}
    assert (call.kind, call.failed) == ("SERVER", False)
    assert call.attributes["rpc.system.name"] == "grpc"
    assert call.attributes["rpc.method"] == PREDICT
    assert call.attributes["rpc.response.status_code"] == "OK"
    assert call.attributes["intent.model"] == served.attributes["intent.model"] == MODEL
    assert hop.attributes["server.address"] == traced.running.predictor.address
    assert call.start <= queue.start <= queue.end <= batch.end <= call.end
    for service in (traced.running.frontend, traced.running.predictor):
        (line,) = [event for event in service.events() if event.get("trace_id") == caller.trace]
        assert (line["event"], line["model"]) == ("call", MODEL)
        assert line["request_id"] == call.attributes["intent.request_id"]


def test_the_load_of_a_model_is_a_span_of_the_call_that_waited_for_it(traced: Traced) -> None:
    first, second = Caller.new(), Caller.new()
    with grpc.insecure_channel(traced.running.frontend.address) as channel:
        requests = [pb.PredictRequest(runId="clinc150-travel", document=DOCUMENT)] * 2
        answers = [
            traced.stub(channel).Predict.future(request, metadata=caller.metadata(), timeout=30)
            for caller, request in zip((first, second), requests, strict=True)
        ]
        for answer in answers:
            assert answer.result().label

    def loads(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
        return [span for span in spans if span.name == "model load" and "clinc150-travel" in span.everything]

    (load,) = loads(traced.receiver.wait_until(lambda spans: bool(loads(spans))))
    assert load.trace_id in (first.trace, second.trace)
    assert load.attributes["intent.model_bytes"] > 100_000
    spans = traced.receiver.wait_for_trace(load.trace_id, "model load", PREDICT_ALONE)
    assert load.parent == named(spans, PREDICT_ALONE, "SERVER").id


def test_a_caller_that_is_not_sampled_is_not_recorded(traced: Traced) -> None:
    left_out, recorded = Caller.new(), Caller.new()
    traced.predict(left_out, sampled=False)
    with grpc.insecure_channel(traced.running.frontend.address) as channel:
        # This call has no trace; the share of such calls to record is 0.
        traced.stub(channel).Predict(pb.PredictRequest(runId=MODEL, document=DOCUMENT), timeout=30)
    traced.predict(recorded)
    traced.receiver.wait_for_trace(recorded.trace, PREDICT, "inference")
    assert left_out.trace not in {span.trace_id for span in traced.receiver.spans}
    first_spans = [span for span in traced.receiver.spans if not span.parent]
    assert first_spans == []


async def test_calls_that_go_together_are_linked(traced: Traced) -> None:
    callers = [Caller.new() for _ in range(200)]
    async with grpc.aio.insecure_channel(traced.running.frontend.address) as channel:
        stub: Any = pb_grpc.PredictionServiceStub(channel)
        request = pb.PredictRequest(runId=MODEL, document=DOCUMENT)
        await asyncio.gather(*(stub.Predict(request, metadata=caller.metadata(), timeout=30) for caller in callers))

    traces = {caller.trace for caller in callers}

    def flights(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
        return [span for span in spans if span.trace_id in traces and span.name in ("batch", "in flight")]

    spans = await asyncio.to_thread(
        traced.receiver.wait_until,
        lambda spans: (
            len(flights(spans)) == len(callers)
            and {span.trace_id for span in spans if span.name == PREDICT} >= traces
            and {(span.trace_id, span.id) for span in flights(spans) if span.name == "batch"}
            <= {(span.trace_id, span.parent) for span in spans if span.name == PREDICT_BATCH}
        ),
    )
    # Each call is in flight once: as a batch of its own trace, or with a link to a batch of another.
    assert {span.trace_id for span in flights(spans)} == traces
    batches = {(span.trace_id, span.id): span for span in flights(spans) if span.name == "batch"}
    assert len(batches) < len(callers)
    served = {(span.trace_id, span.id): span for span in spans if span.name == PREDICT and span.kind == "SERVER"}
    for flight in flights(spans):
        if flight.name == "in flight":
            (link,) = flight.links
            assert (flight.trace_id, flight.parent) in batches[link].links
            assert (flight.trace_id, flight.parent) in served
    together = sum(batch.attributes["intent.queries"] for batch in batches.values())
    assert together == len(callers)


def test_a_call_that_fails_is_told_with_its_code_and_what_it_asked(traced: Traced) -> None:
    for model, told in (("no-such-model", "no-such-model"), ("../../etc\n", None)):
        caller = Caller.new()
        with pytest.raises(grpc.RpcError):
            traced.predict(caller, model)
        call = named(traced.receiver.wait_for_trace(caller.trace, PREDICT), PREDICT)
        assert call.attributes["rpc.response.status_code"] in ("NOT_FOUND", "INVALID_ARGUMENT")
        assert call.attributes.get("intent.model") == told
        assert not call.failed
        (line,) = [event for event in traced.running.frontend.events() if event.get("trace_id") == caller.trace]
        assert line["code"] == call.attributes["rpc.response.status_code"]
        assert line.get("model") == told
        assert "etc" not in json.dumps(line)


def test_a_batch_is_told_with_its_numbers(traced: Traced) -> None:
    caller = Caller.new()
    requests = [pb.PredictRequest(runId=model, document=DOCUMENT) for model in (MODEL, MODEL, "no-such-model")]
    with grpc.insecure_channel(traced.running.frontend.address) as channel:
        batch = pb.PredictBatchRequest(requests=requests)
        traced.stub(channel).PredictBatch(batch, metadata=caller.metadata(), timeout=30)
    method = f"{PREDICT}Batch"
    call = named(traced.receiver.wait_for_trace(caller.trace, method), method)
    assert (call.attributes["intent.queries"], call.attributes["intent.queries_failed"]) == (3, 1)
    (line,) = [event for event in traced.running.frontend.events() if event.get("trace_id") == caller.trace]
    assert (line["queries"], line["failed"], line["code"]) == (3, 1, "OK")


def test_the_open_inference_protocol_is_traced_too(traced: Traced) -> None:
    caller = Caller.new()
    contents = open_inference_pb2.InferTensorContents(bytes_contents=[DOCUMENT.encode()])
    tensor = open_inference_pb2.ModelInferRequest.InferInputTensor(
        name="document", datatype="BYTES", shape=[1], contents=contents
    )
    with grpc.insecure_channel(traced.running.frontend.address) as channel:
        stub: Any = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = open_inference_pb2.ModelInferRequest(model_name=MODEL, inputs=[tensor])
        stub.ModelInfer(request, metadata=caller.metadata(), timeout=30)
    method = "inference.GRPCInferenceService/ModelInfer"
    spans = traced.receiver.wait_for_trace(caller.trace, method, "inference")
    assert named(spans, method).attributes["intent.model"] == MODEL

    if traced.transport == "http2":
        caller = Caller.new()
        body = {"inputs": [{"name": "document", "datatype": "BYTES", "shape": [1], "data": [DOCUMENT]}]}
        url = f"http://{traced.running.frontend.address}/v2/models/{MODEL}/infer"
        headers = dict(caller.metadata())
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=30):
            pass
        route = "POST /v2/models/{model}/infer"
        spans = traced.receiver.wait_for_trace(caller.trace, route, "inference")
        call = named(spans, route)
        assert (call.parent, call.attributes["http.route"]) == (caller.span, "/v2/models/{model}/infer")
        assert call.attributes["intent.model"] == MODEL


def test_no_document_is_in_what_is_sent_or_written(traced: Traced) -> None:
    traced.predict(Caller.new())
    with grpc.insecure_channel(traced.running.frontend.address) as channel:
        for request in (
            pb.ExplainRequest(runId=MODEL, document=DOCUMENT, labels=[MARK], key=MARK),
            pb.ExplainRequest(runId=MODEL, document=f"{MARK} " * 40_000),
            pb.ExplainRequest(runId=f"{MARK} ", document=DOCUMENT),
        ):
            caller = Caller.new()
            try:
                traced.stub(channel).Explain(request, metadata=caller.metadata(), timeout=30)
            except grpc.RpcError as error:
                assert error.code() is not grpc.StatusCode.INTERNAL  # noqa: PT017
            traced.receiver.wait_for_trace(caller.trace, "prediction.PredictionService/Explain")
    assert traced.receiver.spans
    assert not [span for span in traced.receiver.spans if MARK in span.everything]
    for service in (traced.running.frontend, traced.running.predictor):
        assert [event for event in service.events() if event["event"] == "call"]
        assert MARK not in service.log.read_text()


# Without traces, and without a receiver


@pytest.mark.parametrize("transport", transports())
def test_nothing_is_sent_unless_it_is_asked_for(
    transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "models" / MODEL, tmp_path / "models" / MODEL)
    with fake_trace_receiver() as receiver:
        # OpenTelemetry's own variables alone do not request traces.
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{receiver.address}")
        with stack(tmp_path / "models", tmp_path, transport=transport) as running:
            Traced(running, receiver, transport).predict(Caller.new())
            assert running.frontend.stop() == 0
            assert running.predictor.stop() == 0
            assert not [event for event in running.frontend.events() if event["event"] in ("traces", "call")]
        assert receiver.spans == []


@pytest.mark.parametrize("transport", transports())
def test_a_receiver_that_is_down_harms_nobody_and_gets_spans_once_it_is_up(transport: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "models" / MODEL, tmp_path / "models" / MODEL)
    port, metrics = free_port(), free_port()
    flags = ("--trace-endpoint", f"127.0.0.1:{port}", "--trace-share", "1")
    frontend = (*flags, "--metrics-port", str(metrics))
    with stack(tmp_path / "models", tmp_path, frontend=frontend, predictor=flags, transport=transport) as running:
        with grpc.insecure_channel(running.frontend.address) as channel:
            stub: Any = pb_grpc.PredictionServiceStub(channel)
            for _ in range(300):
                assert stub.Predict(pb.PredictRequest(runId=MODEL, document=DOCUMENT), timeout=30).label
        with fake_trace_receiver(port) as receiver:
            receiver.wait_until(lambda spans: {span.service for span in spans} == {"frontend", "predictor"})
            assert running.frontend.stop() == 0
        assert running.predictor.stop() == 0


def test_one_process_has_traces_without_a_hop(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "models" / MODEL, tmp_path / "models" / MODEL)
    with fake_trace_receiver() as receiver:
        flags = ("--trace-endpoint", receiver.address, "--trace-share", "1")
        with running_service("model_service", tmp_path / "models", tmp_path, *flags) as service:
            for caller in (Caller.new(), Caller.new()):
                with grpc.insecure_channel(service.address) as channel:
                    stub: Any = pb_grpc.PredictionServiceStub(channel)
                    request = pb.PredictRequest(runId=MODEL, document=DOCUMENT)
                    stub.Predict(request, metadata=caller.metadata(), timeout=30)
            spans = receiver.wait_for_trace(caller.trace, PREDICT, "queue", "batch", "inference")
            assert named(spans, "inference").parent == named(spans, "batch").id
            (load,) = [span for span in receiver.spans if span.name == "model load"]
            assert load.trace_id != caller.trace
            assert {span.service for span in spans} == {"model_service"}
