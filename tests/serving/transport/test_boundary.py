from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc import StatusCode

from intent_serving_client.metadata import REQUEST_ID_KEY
from serving.call.call import current_call
from serving.domain import errors
from serving.domain.errors import INTERNAL_MESSAGE, ServingError
from serving.domain.prediction import Query
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.telemetry.logs import with_request_id
from tests.builders import PATIENCE, PREDICTOR, SERVING, channel_to, health_of, hosted
from tests.fakes.predictor import HangingBehaviour, echo, fake_predictor

pytestmark = pytest.mark.usefixtures("each_transport")

METHOD = f"{PREDICTOR}/PredictorPredict"


@pytest.fixture(autouse=True)
def events() -> Iterator[list[Any]]:
    """The log lines of the test, with the values that are bound to the call that wrote them."""
    with structlog.testing.capture_logs(processors=[with_request_id]) as captured:
        yield captured


@asynccontextmanager
async def asking(
    model_dir: Path, behaviour: Callable[[Query], Awaitable[str]], **settings: Any
) -> AsyncIterator[tuple[Any, Any]]:
    async with hosted(model_dir, fake_predictor(behaviour), **settings) as address, channel_to(address) as channel:
        yield pb_grpc.PredictorStub(channel), channel


def request(document: str = "x") -> pb.PredictorPredictRequest:
    return pb.PredictorPredictRequest(runId="a", document=document)


async def failure_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def seen(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), PATIENCE)


# Errors become statuses


TREE = [
    errors.InvalidModelId, errors.DocumentTooLarge, errors.ModelNotFound, errors.ModelIncomplete,
    errors.InvalidManifest, errors.ForbiddenPickle, errors.NoBackend, errors.ModelTooLarge, errors.TooManyLoads,
    errors.DeadlineExceeded, errors.VolumeUnavailable, errors.NonFiniteLogits,
]  # fmt: skip


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
async def test_an_error_of_the_tree_is_told_with_its_code_and_its_message(
    kind: type[ServingError], tmp_path: Path
) -> None:
    async def refuse(_: Query) -> str:
        raise kind("what to do about it: é😀")

    async with asking(tmp_path, refuse) as (stub, _):
        failure = await failure_of(stub.PredictorPredict(request()))
        assert failure.code() is kind.code
        assert failure.details() == "what to do about it: é😀"


@pytest.mark.parametrize("secret", [ValueError("/secret/path"), KeyError("/secret/path"), TimeoutError("/secret/path")])
async def test_a_foreign_error_is_told_with_a_fixed_text_and_logged_once_under_the_request_id(
    secret: Exception, tmp_path: Path, events: list[Any]
) -> None:
    async def broken(_: Query) -> str:
        raise secret

    async with asking(tmp_path, broken) as (stub, _):
        failure = await failure_of(stub.PredictorPredict(request(), metadata=((REQUEST_ID_KEY, "my-id"),)))
    assert failure.code() is StatusCode.INTERNAL
    assert failure.details() == INTERNAL_MESSAGE
    told = f"{failure.details()} {failure.initial_metadata()} {failure.trailing_metadata()}"
    assert "secret" not in told
    assert type(secret).__name__ not in told
    (logged,) = [event for event in events if event["log_level"] == "error"]
    assert (logged["request_id"], logged["method"], logged["exc_info"]) == ("my-id", METHOD, secret)


async def test_a_foreign_cause_is_logged_and_not_told(tmp_path: Path, events: list[Any]) -> None:
    async def refuse(_: Query) -> str:
        raise errors.ModelUnusable("publish it again") from OSError("secret")

    async with asking(tmp_path, refuse) as (stub, _):
        failure = await failure_of(stub.PredictorPredict(request()))
    assert failure.details() == "publish it again"
    assert "secret" not in str(failure.trailing_metadata())
    (logged,) = [event for event in events if event.get("code") == "FAILED_PRECONDITION"]
    assert "secret" in logged["cause"]


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"], ids=["key", "truncated", "no-utf-8"])
async def test_bytes_that_are_no_message_are_told_as_the_callers_fault(data: bytes, tmp_path: Path) -> None:
    async with asking(tmp_path, echo) as (_, channel):
        failure = await failure_of(channel.unary_unary(f"/{METHOD}")(data))
        assert failure.code() is StatusCode.INVALID_ARGUMENT
        assert REQUEST_ID_KEY in dict(failure.trailing_metadata() or ())


# Deadlines


async def test_the_deadline_of_the_caller_ends_the_work(tmp_path: Path) -> None:
    hanging = HangingBehaviour()
    async with asking(tmp_path, hanging) as (stub, _):
        failure = await failure_of(stub.PredictorPredict(request(), timeout=0.3))
        assert failure.code() is StatusCode.DEADLINE_EXCEEDED
        await seen(hanging.cancelled)


async def test_the_handler_knows_the_deadline_of_its_caller(tmp_path: Path) -> None:
    async def left(_: Query) -> str:
        return str(current_call().deadline.remaining())

    async with asking(tmp_path, left, default_deadline_seconds=77.0) as (stub, _):
        answer = await stub.PredictorPredict(request(), timeout=600.0)
        assert 600.0 - PATIENCE < float(answer.label) <= 610.0


async def test_a_call_without_a_deadline_gets_the_default(tmp_path: Path) -> None:
    async def left(_: Query) -> str:
        return str(current_call().deadline.remaining())

    async with asking(tmp_path, left, default_deadline_seconds=600.0) as (stub, _):
        answer = await stub.PredictorPredict(request())
        assert 600.0 - PATIENCE < float(answer.label) <= 600.0


async def test_the_default_deadline_ends_the_work_and_is_told(tmp_path: Path) -> None:
    hanging = HangingBehaviour()
    async with asking(tmp_path, hanging, default_deadline_seconds=0.05) as (stub, _):
        failure = await failure_of(stub.PredictorPredict(request()))
        assert failure.code() is StatusCode.DEADLINE_EXCEEDED
        assert failure.details() == "the deadline of the call has passed"
        assert hanging.cancelled.is_set()


# The bound on calls in flight


async def test_calls_beyond_the_bound_are_refused_and_the_next_is_served_when_one_ends(tmp_path: Path) -> None:
    hanging = HangingBehaviour()
    async with asking(tmp_path, hanging, max_in_flight=1) as (stub, channel):
        first = asyncio.ensure_future(stub.PredictorPredict(request("first")))
        await seen(hanging.started)
        for _ in range(5):
            failure = await failure_of(stub.PredictorPredict(request()))
            assert failure.code() is StatusCode.RESOURCE_EXHAUSTED
            assert REQUEST_ID_KEY in dict(failure.trailing_metadata() or ())
        assert hanging.calls == 1
        # The health check answers while the service is full.
        assert await health_of(channel) == SERVING
        hanging.may_answer.set()
        assert (await first).label == "first"
        assert (await stub.PredictorPredict(request("next"))).label == "next"


async def test_a_caller_that_cancels_ends_the_work_and_frees_its_slot(tmp_path: Path) -> None:
    hanging = HangingBehaviour()
    async with asking(tmp_path, hanging, max_in_flight=1) as (stub, _):
        for _ in range(5):
            hanging.started.clear()
            hanging.cancelled.clear()
            call = stub.PredictorPredict(request())
            await seen(hanging.started)
            call.cancel()
            await seen(hanging.cancelled)
        hanging.may_answer.set()
        assert (await stub.PredictorPredict(request("next"))).label == "next"


@pytest.mark.parametrize("error", [ValueError("bug"), errors.ModelNotFound("none"), None], ids=repr)
async def test_a_call_that_ended_frees_its_slot_however_it_ended(error: Exception | None, tmp_path: Path) -> None:
    async def behave(query: Query) -> str:
        if error is not None and query.document == "fail":
            raise error
        return query.document

    async with asking(tmp_path, behave, max_in_flight=1) as (stub, _):
        for _ in range(10):
            try:
                await stub.PredictorPredict(request("fail"))
            except grpc.aio.AioRpcError as failure:
                assert failure.code() is not StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017
        assert (await stub.PredictorPredict(request("next"))).label == "next"


# Request ids


async def request_id_after(stub: Any, offered: str | None) -> str:
    call = stub.PredictorPredict(request(), metadata=None if offered is None else ((REQUEST_ID_KEY, offered),))
    await call
    return str(dict(await call.trailing_metadata())[REQUEST_ID_KEY])


@pytest.mark.parametrize("offered", ["a", "request-1", "A.b_c-9", "x" * 128])
async def test_the_callers_request_id_comes_back(offered: str, tmp_path: Path) -> None:
    async with asking(tmp_path, echo) as (stub, _):
        assert await request_id_after(stub, offered) == offered


@pytest.mark.parametrize("offered", [None, "", "x" * 129, "two words", "a=b", "{}"])
async def test_a_call_without_a_usable_request_id_gets_one_of_its_own(offered: str | None, tmp_path: Path) -> None:
    async with asking(tmp_path, echo) as (stub, _):
        first, second = await request_id_after(stub, offered), await request_id_after(stub, offered)
        assert uuid.UUID(first) != uuid.UUID(second)


async def test_calls_side_by_side_keep_their_own_request_ids(tmp_path: Path) -> None:
    together = asyncio.Barrier(20)

    async def own_id(query: Query) -> str:
        before = current_call().request_id
        await together.wait()
        assert before == current_call().request_id
        return before

    async with asking(tmp_path, own_id) as (stub, _):
        ids = [f"id-{number}" for number in range(20)]
        answers = await asyncio.gather(
            *(stub.PredictorPredict(request(), metadata=((REQUEST_ID_KEY, one),), timeout=PATIENCE) for one in ids)
        )
        assert [answer.label for answer in answers] == ids


# Messages


async def test_a_message_that_is_too_large_fails_alone(tmp_path: Path) -> None:
    hanging = HangingBehaviour()
    async with asking(tmp_path, hanging, max_message_bytes=2048) as (stub, _):
        under_way = asyncio.ensure_future(stub.PredictorPredict(request("under way")))
        await seen(hanging.started)
        failure = await failure_of(stub.PredictorPredict(request("x" * 4096)))
        assert failure.code() is StatusCode.RESOURCE_EXHAUSTED
        hanging.may_answer.set()
        assert (await under_way).label == "under way"
        assert (await stub.PredictorPredict(request("x" * 1024))).label == "x" * 1024
