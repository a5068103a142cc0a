"""One call behind the boundary, on a fake transport: events that no client of gRPC causes, or only by chance."""

from __future__ import annotations

import asyncio
import gc
import uuid
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc
import pytest
import structlog
from grpc import StatusCode

from intent_serving_client.metadata import REQUEST_ID_KEY
from serving.call.call import Call, current_call
from serving.call.presented import Presented
from serving.call.spans import Span
from serving.domain import errors
from serving.domain.prediction import Query
from serving.stubs import prediction_service_pb2 as pb
from serving.telemetry.call_log import CallLog, model_of
from serving.telemetry.logs import with_request_id
from serving.transport.admission import Admission
from serving.transport.boundary import Boundary
from serving.transport.exchange import Ended, Metadata, RawMetadata
from serving.transport.guards import Guards
from serving.transport.served_call import GuardedMethod, ServedCall
from serving.transport.service import Handlers
from tests.builders import PREDICTOR, a_turn
from tests.fakes.predictor import HangingBehaviour, echo, fake_predictor
from tests.serving.kept_spans import KeptSpans


@pytest.fixture(autouse=True)
def events() -> Iterator[list[Any]]:
    """The log lines of the test, with the values that are bound to the call that wrote them."""
    with structlog.testing.capture_logs(processors=[with_request_id]) as captured:
        yield captured


class FakeExchange:
    """A call as a transport presents it, and its outcome."""

    def __init__(self, deadline: float | None = None, metadata: Mapping[str, str] | None = None) -> None:
        self.deadline = deadline
        self.on_end: Callable[[Ended], object] | None = None
        self.metadata = metadata or {}
        self.trailing: dict[str, str] = {}
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        """The response, or the status with its message."""

    def metadatum(self, key: str) -> str | None:
        return self.metadata.get(key)

    def certificate(self) -> bytes | None:
        return None

    def answer(self, response: Any, metadata: RawMetadata = ()) -> None:
        self.trailing = {key.decode(): value.decode() for key, value in metadata}
        self.ended.set_result(response)

    def fail(self, code: StatusCode, message: str, metadata: Metadata = ()) -> None:
        self.trailing = dict(metadata)
        self.ended.set_result((code, message))

    def end(self, why: Ended) -> None:
        """End the call as a transport does."""
        assert self.on_end is not None
        self.on_end(why)


class FakeTransport:
    """A transport that keeps the registered methods and handlers."""

    def __init__(self) -> None:
        self.methods: dict[str, Mapping[str, GuardedMethod]] = {}
        self.tables: dict[str, Handlers] = {}
        self.generic: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self.generic += generic_rpc_handlers

    def add_registered_method_handlers(self, service_name: str, method_handlers: Handlers) -> None:
        self.tables[service_name] = method_handlers

    def add_guarded_methods(self, service_name: str, methods: Mapping[str, GuardedMethod]) -> None:
        self.methods[service_name] = methods


def bounded(transport: FakeTransport, guards: Guards | None = None) -> Boundary:
    return Boundary(transport, default_deadline=30.0, guards=guards or Guards(admission=Admission(10)))


def predict(behaviour: Callable[[Query], Awaitable[str]], guards: Guards | None = None) -> GuardedMethod:
    """Return the guarded method of a predictor that answers each query with the result of ``behaviour``."""
    transport = FakeTransport()
    fake_predictor(behaviour).register(bounded(transport, guards))
    return transport.methods[PREDICTOR]["PredictorPredict"]


def request(document: str = "x") -> bytes:
    return pb.PredictorPredictRequest(runId="a", document=document).SerializeToString()


# Log lines and spans


class FakeTracer:
    """A tracer that records every call and keeps its outcome."""

    def __init__(self) -> None:
        self.kept = KeptSpans()
        self.ended: list[tuple[StatusCode, str]] = []

    def begin(self, method: str, presented: Presented) -> Span:
        del method, presented
        return self.kept.call()

    def end(self, span: Span, code: StatusCode, call: Call) -> None:
        span.end()
        self.ended.append((code, model_of(call.notes)))


async def test_each_call_is_told_once_with_what_the_rooms_below_know_of_it(events: list[Any]) -> None:
    tracer = FakeTracer()

    async def behave(query: Query) -> str:
        call = current_call()
        assert call.span is not None
        call.notes.query = query
        if query.document == "fail":
            raise errors.ModelNotFound("none")
        if query.document == "hang":
            await asyncio.Event().wait()
        return query.document

    method = predict(behave, Guards(tracer=tracer, log=CallLog("all")))
    exchanges = [FakeExchange() for _ in range(4)]
    for exchange, document in zip(exchanges, ("well", "fail", "hang", "hang"), strict=True):
        method(exchange, request(document))
    await a_turn(10)
    exchanges[2].end(Ended.CALLER_LEFT)
    exchanges[3].end(Ended.DEADLINE)
    codes = [StatusCode.OK, StatusCode.NOT_FOUND, StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED]
    assert tracer.ended == [(code, "a") for code in codes]
    assert [(event["event"], event["code"], event["model"]) for event in events] == [
        ("call", code.name, "a") for code in codes
    ]
    assert len({event["request_id"] for event in events}) == 4


async def test_what_was_asked_does_not_outlive_its_call() -> None:
    kept = []

    async def behave(query: Query) -> str:
        kept.append(current_call())
        current_call().notes.query = query
        return query.document

    exchange = FakeExchange()
    predict(behave)(exchange, request("my words"))
    await exchange.ended
    assert kept[0].notes.query is None


# How a call ends


@pytest.mark.parametrize("why", Ended)
async def test_a_call_that_ends_before_its_answer_ends_the_work_and_gives_its_slot_back(why: Ended) -> None:
    hanging, admission = HangingBehaviour(), Admission(1)
    method = predict(hanging, Guards(admission=admission))
    for _ in range(3):
        exchange = FakeExchange()
        method(exchange, request())
        await a_turn()
        assert admission.in_flight == 1
        exchange.end(why)
        assert admission.in_flight == 0
        await asyncio.wait_for(hanging.cancelled.wait(), 30.0)
        hanging.cancelled.clear()
    assert hanging.calls == 3


async def test_a_handler_without_a_coroutine_answers_now_or_later_and_hears_of_who_leaves() -> None:
    calls: list[ServedCall] = []
    left: list[bytes] = []

    def handle(data: bytes, served: ServedCall) -> None:
        if data == b"now":
            served.respond(data)
            return
        calls.append(served)
        served.on_leave = lambda: left.append(data)

    method = bounded(FakeTransport()).guarded("Method", handle, None)
    exchanges = {data: FakeExchange() for data in (b"now", b"later", b"never", b"failed")}
    for data, exchange in exchanges.items():
        method(exchange, data)
    assert exchanges[b"now"].ended.result() == b"now"
    later, never, failed = calls
    exchanges[b"never"].end(Ended.CALLER_LEFT)
    never.respond(b"too late")
    later.respond(b"later")
    later.fail(ValueError("too late"))
    failed.fail(errors.ModelNotFound("what to do"))
    assert left == [b"never", b"failed"]
    assert not exchanges[b"never"].ended.done()
    assert exchanges[b"later"].ended.result() == b"later"
    assert exchanges[b"failed"].ended.result() == (StatusCode.NOT_FOUND, "what to do")


async def test_what_is_no_servicer_may_stand_behind_the_boundary_too() -> None:
    async def behave(data: Any, _: Any) -> Any:
        if data is None:
            raise errors.ModelNotFound("what to do about it")
        return data

    guarded = bounded(FakeTransport()).guarded("GET /", behave, None)
    asked, well, ill = object(), FakeExchange(), FakeExchange()
    guarded(well, asked)
    assert await well.ended is asked
    guarded(ill, None)
    assert await ill.ended == (StatusCode.NOT_FOUND, "what to do about it")
    assert REQUEST_ID_KEY in ill.trailing


@pytest.mark.parametrize("ago", [0.0, 1.0])
async def test_a_call_whose_deadline_has_passed_is_never_executed(ago: float) -> None:
    hanging, exchange = HangingBehaviour(), FakeExchange(deadline=asyncio.get_running_loop().time() - ago)
    predict(hanging)(exchange, request())
    assert await exchange.ended == (StatusCode.DEADLINE_EXCEEDED, "the deadline of the call has passed")
    assert hanging.calls == 0
    assert REQUEST_ID_KEY in exchange.trailing


@pytest.mark.parametrize(
    "offered", ["a\nlevel=info forged=yes", "a\r\n", "\x1b[31mred", "a\0", "x" * 129, "ｉｄ", ""], ids=ascii
)
async def test_a_request_id_that_could_forge_a_log_line_is_replaced(offered: str, events: list[Any]) -> None:
    async def broken(_: Query) -> str:
        raise ValueError

    exchange = FakeExchange(metadata={REQUEST_ID_KEY: offered})
    predict(broken)(exchange, request())
    await exchange.ended
    own = uuid.UUID(exchange.trailing[REQUEST_ID_KEY])
    assert [event["request_id"] for event in events] == [own.hex]


# Registration


async def _never(request: Any, context: Any) -> None:
    raise AssertionError


@pytest.mark.parametrize(
    "handler",
    [grpc.stream_unary_rpc_method_handler(_never), grpc.stream_stream_rpc_method_handler(_never)],
    ids=["requests", "both"],
)
def test_a_method_that_takes_a_stream_is_refused_when_it_is_registered(handler: Any) -> None:
    transport = FakeTransport()
    with pytest.raises(NotImplementedError, match=r"a\.Service/Watch"):
        bounded(transport).add_registered_method_handlers("a.Service", {"Watch": handler})
    assert transport.tables == {}
    assert transport.methods == {}


def test_no_way_leads_past_the_boundary() -> None:
    transport = FakeTransport()
    fake_predictor(echo).register(bounded(transport))
    assert transport.generic == []
    assert transport.tables == {}
    assert {type(method) for method in transport.methods[PREDICTOR].values()} == {GuardedMethod}


@pytest.mark.parametrize("why", [Ended.CALLER_LEFT, Ended.DEADLINE])
async def test_a_call_that_ends_before_its_first_step_leaves_no_warning(why: Ended) -> None:
    begun: list[Query] = []

    async def behaviour(query: Query) -> str:
        begun.append(query)
        return "answer"

    exchange = FakeExchange()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predict(behaviour)(exchange, request())
        exchange.end(why)
        await a_turn(5)
        gc.collect()
    assert not begun
    assert [str(warning.message) for warning in caught] == []
