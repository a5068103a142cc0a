from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from serving.call.call import Call, CallNotes
from serving.call.deadline import Deadline
from serving.domain.errors import ModelNotFound
from serving.domain.prediction import Prediction, Query
from serving.telemetry.traces.sending import MOST_SPANS_WAITING, TraceSender
from serving.telemetry.traces.spans import TRACEPARENT, TRACESTATE
from tests.builders import PATIENCE, refusing_address
from tests.fakes.presented import FakePresented
from tests.fakes.trace_receiver import FakeTraceReceiver, fake_trace_receiver
from tests.serving.kept_spans import KeptSpans

METHOD = "prediction.PredictionService/Predict"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
DOCUMENT = "what my doctor said"
PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")


@pytest.fixture
def kept() -> KeptSpans:
    return KeptSpans()


def traceparent(flags: str = "01") -> tuple[str, str]:
    return TRACEPARENT, f"00-{TRACE}-{PARENT}-{flags}"


def a_call(**notes: Any) -> Call:
    made = CallNotes()
    for name, value in notes.items():
        setattr(made, name, value)
    return Call("request-1", Deadline.after(30.0), notes=made)


# Calls that are recorded


def test_a_share_of_the_calls_without_a_trace_is_recorded(kept: KeptSpans) -> None:
    assert kept.calls(0.0).begin(METHOD, FakePresented()) is None
    assert kept.calls(1.0).begin(METHOD, FakePresented()) is not None
    tenth = kept.calls(0.1)
    recorded = sum(tenth.begin(METHOD, FakePresented()) is not None for _ in range(10_000))
    # Ten standard deviations.
    assert 700 < recorded < 1300


def test_only_so_many_traces_are_begun_in_a_second_however_many_calls_there_are(kept: KeptSpans) -> None:
    began = time.monotonic()
    calls = kept.calls(1.0, per_second=5.0)
    begun = [span for _ in range(1000) if (span := calls.begin(METHOD, FakePresented())) is not None]
    seconds = time.monotonic() - began
    assert 5 <= len(begun) <= 5 + 5 * seconds + 1
    # A call whose caller has begun a trace is recorded nevertheless.
    assert calls.begin(METHOD, FakePresented(traceparent("01"))) is not None


def test_less_than_one_trace_a_second_is_some_in_a_minute(kept: KeptSpans) -> None:
    now = time.monotonic()
    calls = kept.calls(1.0, per_second=0.1, clock=lambda: now)
    begun = 0
    for _ in range(600):
        now += 0.1
        begun += calls.begin(METHOD, FakePresented()) is not None
    assert begun in (5, 6)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize(("flags", "recorded"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_where_the_caller_has_decided_the_share_does_not_matter(
    flags: str, recorded: bool, share: float, kept: KeptSpans
) -> None:
    span = kept.calls(share).begin(METHOD, FakePresented(("a", "b"), traceparent(flags)))
    assert (span is not None) == recorded
    if span is not None:
        assert span.trace_id == TRACE


@pytest.mark.parametrize(
    "told",
    [
        "", "00", TRACE, f"00-{TRACE}-{PARENT}", f"00-{TRACE}-{PARENT}-1", f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more", f" 00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01\n", "\x1b[31m",
    ],
)  # fmt: skip
def test_a_trace_that_is_not_well_written_is_none(told: str, kept: KeptSpans) -> None:
    presented = FakePresented((TRACEPARENT, told))
    assert kept.calls(0.0).begin(METHOD, presented) is None
    span = kept.calls(1.0).begin(METHOD, presented)
    assert span is not None
    assert span.trace_id != TRACE


@pytest.mark.parametrize("told", [f"01-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-01-what-comes-later"])
def test_versions_to_come_are_read_as_far_as_they_are_known(told: str, kept: KeptSpans) -> None:
    span = kept.calls(0.0).begin(METHOD, FakePresented((TRACEPARENT, told)))
    assert span is not None
    assert span.trace_id == TRACE


@given(st.text(max_size=80), st.text(max_size=80))
def test_whatever_callers_send_calls_are_served(parent: str, state: str) -> None:
    tracer = KeptSpans().calls(0.5)
    tracer.begin(METHOD, FakePresented((TRACEPARENT, parent), (TRACESTATE, state)))
    span = tracer.begin(METHOD, FakePresented(traceparent(), (TRACESTATE, state)))
    assert span is not None
    for _, value in span.metadata():
        assert re.fullmatch(r"[\x20-\x7e]*", value)


# Attributes of a call


def test_a_span_tells_the_call_and_never_a_document(kept: KeptSpans) -> None:
    tracer = kept.calls(0.0)
    span = tracer.begin(METHOD, FakePresented(traceparent(), (TRACESTATE, "vendor=1")))
    assert span is not None
    query = Query("name", DOCUMENT, explain=(DOCUMENT,), key=DOCUMENT)
    answer = Prediction("label", 0.9, (), "name@2", "1.0")
    tracer.end(span, StatusCode.OK, a_call(query=query, answer=answer, release="canary"))
    (told,) = kept.spans
    assert told.name == METHOD
    assert told.kind.name == "SERVER"
    assert told.parent is not None
    assert (f"{told.parent.trace_id:032x}", f"{told.parent.span_id:016x}") == (TRACE, PARENT)
    assert told.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.response.status_code": "OK",
        "intent.request_id": "request-1",
        "intent.model": "name@2",
        "intent.release": "canary",
    }
    assert told.status.is_unset
    assert DOCUMENT not in told.to_json()
    own = f"{told.context.span_id:016x}" if told.context else ""
    assert span.metadata() == ((TRACEPARENT, f"00-{TRACE}-{own}-01"), (TRACESTATE, "vendor=1"))


@pytest.mark.parametrize(
    ("code", "fault"), [(StatusCode.NOT_FOUND, False), (StatusCode.CANCELLED, False), (StatusCode.UNAVAILABLE, True)]
)
def test_only_faults_of_the_server_are_errors_of_its_span(code: StatusCode, fault: bool, kept: KeptSpans) -> None:
    tracer = kept.calls(1.0)
    span = tracer.begin("POST /v2/models/{model}/infer", FakePresented())
    assert span is not None
    batch = a_call(queries=[Query("a", DOCUMENT)] * 2, outcomes=[ModelNotFound("none"), None])
    tracer.end(span, code, batch)
    (told,) = kept.spans
    assert (not told.status.is_unset) == fault
    attributes = dict(told.attributes or {})
    assert (attributes["http.request.method"], attributes["http.route"]) == ("POST", "/v2/models/{model}/infer")
    assert (attributes["intent.queries"], attributes["intent.queries_failed"]) == (2, 1)
    assert attributes.get("error.type") == (code.name if fault else None)


def test_parts_have_their_place_and_end_once(kept: KeptSpans) -> None:
    tracer = kept.calls(1.0)
    first, second = tracer.begin(METHOD, FakePresented()), tracer.begin(METHOD, FakePresented())
    assert first is not None
    assert second is not None
    part = first.child("batch", links=[second], since=7)
    part.end()
    part.end("CANCELLED")
    call = first.child("asked", "client")
    call.end("UNAVAILABLE")
    batch, asked = kept.spans
    assert batch.start_time == 7
    assert batch.status.is_unset
    assert [f"{link.context.trace_id:032x}" for link in batch.links] == [second.trace_id]
    assert batch.parent == asked.parent
    assert (asked.kind.name, asked.status.is_unset) == ("CLIENT", False)


# Sending of spans


@pytest.fixture
def receiver() -> Iterator[FakeTraceReceiver]:
    with fake_trace_receiver() as running:
        yield running


def counted(sender: TraceSender) -> dict[str, float]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(sender)
    return {
        "".join([sample.name.removeprefix("intent_trace_spans_"), *sample.labels.values()]): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }


async def test_what_waits_is_sent_at_the_end_and_counted(receiver: FakeTraceReceiver) -> None:
    # Long limits, for a busy machine.
    sender = TraceSender(receiver.address, "frontend", message_seconds=PATIENCE, end_seconds=PATIENCE)
    for number in range(1000):
        sender.tracer.start_span(f"span {number}").end()
    await sender.close()
    assert len(receiver.spans) == 1000
    assert {span.service for span in receiver.spans} == {"frontend"}
    assert counted(sender) == {"sent_total": 1000, "dropped_totalqueue_full": 0, "dropped_totalnot_sent": 0}


async def test_a_proxy_in_the_environment_is_not_used(
    receiver: FakeTraceReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, f"http://{refusing_address()}")
    sender = TraceSender(receiver.address, "frontend", message_seconds=PATIENCE, end_seconds=PATIENCE)
    sender.tracer.start_span("one").end()
    await sender.close()
    assert [span.name for span in receiver.spans] == ["one"]


async def test_a_receiver_that_is_down_costs_a_bounded_end_and_what_it_missed_is_counted() -> None:
    sender = TraceSender(refusing_address(), "frontend")
    many = MOST_SPANS_WAITING * 2
    for number in range(many):
        sender.tracer.start_span(f"span {number}").end()
    async with asyncio.timeout(PATIENCE):
        await sender.close()
    told = counted(sender)
    assert told["sent_total"] == 0
    assert told["dropped_totalqueue_full"] >= MOST_SPANS_WAITING / 2
    assert told["dropped_totalqueue_full"] + told["dropped_totalnot_sent"] == many


async def test_a_receiver_that_takes_connections_and_says_nothing_does_not_hold_up_the_end() -> None:
    silent = await asyncio.start_server(lambda *_: asyncio.sleep(60), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    sender = TraceSender(f"127.0.0.1:{port}", "frontend")
    sender.tracer.start_span("span").end()
    async with asyncio.timeout(PATIENCE):
        await sender.close()
    assert counted(sender)["dropped_totalnot_sent"] == 1
    silent.close()


def test_the_library_is_loaded_where_traces_are_on_alone() -> None:
    script = "import sys, frontend.__main__, frontend.service, predictor.service; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "serving.runtime.hosting" in loaded.stdout.split()
    assert not [module for module in loaded.stdout.split() if module.startswith("opentelemetry.")]
