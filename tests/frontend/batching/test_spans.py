from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc import StatusCode

from frontend.batching.coalescing import CoalescingBackend
from serving.call.call import Call, enter_call, span_of_call
from serving.domain.errors import ServingError, Unavailable
from serving.domain.prediction import Prediction, Query
from tests.builders import a_call, a_turn
from tests.fakes.engine import FakeEngine
from tests.fakes.open_inference import FakeOpenInference, Refusal, before
from tests.fakes.torchserve import Archive, FakeTorchServe, asking, documents, running
from tests.serving.kept_spans import KeptSpans

QUERY = Query("a", "x")


@pytest.fixture
def kept() -> KeptSpans:
    return KeptSpans()


def traced(kept: KeptSpans) -> Call:
    return a_call().with_span(kept.call())


async def test_a_call_shows_when_it_waited_and_when_it_was_in_flight(kept: KeptSpans) -> None:
    backend = FakeEngine(held=True)
    coalescing = CoalescingBackend(backend, calls=1)
    asked = [asyncio.ensure_future(coalescing.predict(QUERY, traced(kept))) for _ in range(3)]
    asked.append(asyncio.ensure_future(coalescing.predict(QUERY, a_call())))
    await a_turn(5)
    assert kept.names() == ["queue"] * 3
    backend.may_answer.set()
    await asyncio.gather(*asked)
    assert kept.names() == ["queue"] * 3 + ["batch"] + ["in flight"] * 2
    batch = kept.spans[3]
    assert batch.attributes == {"intent.queries": 4}
    # The work of a batch runs in the context of the batch's own span.
    (call,) = backend.served_as
    assert call.span is not None
    assert batch.context is not None
    assert call.span.trace_id == f"{batch.context.trace_id:032x}"


async def test_a_batch_of_calls_that_are_not_traced_has_no_span() -> None:
    backend = FakeEngine()
    await CoalescingBackend(backend, calls=1).predict(QUERY, a_call())
    (call,) = backend.served_as
    assert call.span is None


async def test_who_leaves_the_queue_or_the_batch_ends_their_spans(kept: KeptSpans) -> None:
    backend = FakeEngine(held=True)
    coalescing = CoalescingBackend(backend, calls=1)
    first, second = (asyncio.ensure_future(coalescing.predict(QUERY, traced(kept))) for _ in range(2))
    await a_turn(5)
    waiting = asyncio.ensure_future(coalescing.predict(QUERY, traced(kept)))
    await a_turn(5)
    for call in (waiting, second):
        call.cancel()
        await a_turn(5)
    assert kept.names() == ["queue", "queue", "queue CANCELLED", "in flight CANCELLED"]
    first.cancel()
    await a_turn(5)
    assert kept.names()[4:] == ["batch CANCELLED"]


@pytest.mark.parametrize(("failure", "told"), [(Unavailable("none"), "UNAVAILABLE"), (ValueError("bug"), "INTERNAL")])
async def test_a_batch_that_fails_says_so(failure: Exception, told: str, kept: KeptSpans) -> None:
    backend = FakeEngine(refusal=failure)
    coalescing = CoalescingBackend(backend, calls=1)
    calls = [coalescing.predict(QUERY, traced(kept)) for _ in range(2)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, ServingError) for outcome in outcomes)
    assert kept.names() == ["queue", "queue", f"batch {told}", f"in flight {told}"]


# Third-party engines


async def test_a_server_of_the_open_inference_protocol_gets_the_trace(kept: KeptSpans) -> None:
    engine, call = FakeOpenInference(), traced(kept)
    async with before(engine) as backend:
        await backend.predict(QUERY, call)
        await backend.predict(QUERY, a_call())
    (hop,) = kept.spans
    assert hop.context is not None
    assert hop.name == "inference.GRPCInferenceService/ModelInfer"
    assert engine.metadata[0]["traceparent"] == f"00-{hop.context.trace_id:032x}-{hop.context.span_id:016x}-01"
    assert "traceparent" not in engine.metadata[1]


async def test_an_engine_that_refuses_is_told_by_its_code(kept: KeptSpans) -> None:
    async def refuse(_: list[str]) -> None:
        raise Refusal(StatusCode.RESOURCE_EXHAUSTED)

    async with before(FakeOpenInference(refuse)) as backend:
        with pytest.raises(ServingError):
            await backend.predict(QUERY, traced(kept))
    assert kept.names() == ["inference.GRPCInferenceService/ModelInfer RESOURCE_EXHAUSTED"]
    assert "secret" not in "".join(span.to_json() for span in kept.spans)


async def test_torchserve_gets_the_trace(kept: KeptSpans) -> None:
    async with running(FakeTorchServe(a=Archive(documents("a")))) as fake, asking(fake) as backend:
        await backend.predict(QUERY, a_call())
        assert kept.spans == []
        call = traced(kept)
        enter_call(call)
        answer: Prediction = await backend.predict(QUERY, call)
        assert answer.label == "a x"
        assert span_of_call() is call.span
    (hop,) = kept.spans
    assert hop.name == "org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
    assert dict(hop.attributes or {})["rpc.response.status_code"] == grpc.StatusCode.OK.name
