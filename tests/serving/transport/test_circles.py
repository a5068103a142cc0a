"""Calls leave no objects that only the garbage collector finds; a service stalls while the collector runs."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from grpc_http2.alarms import Alarm
from grpc_http2.server.calls.call import ServerCall
from serving.call.call import Call, CallNotes
from serving.domain.errors import ModelNotFound, ServingError
from serving.domain.prediction import Query
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.transport.served_call import ServedCall
from tests.builders import channel_to, hosted
from tests.fakes.predictor import fake_predictor

pytestmark = [pytest.mark.usefixtures("each_transport"), pytest.mark.slow]

CALLS = 20
OF_CALLS = (Call, CallNotes, Alarm, ServedCall, ServerCall, ServingError, grpc.aio.AbortError)


@contextmanager
def only_when_told() -> Iterator[None]:
    """Run the garbage collector only on request, and keep the objects that it finds."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def found() -> Sequence[Any]:
    gc.collect()
    return [one for one in gc.garbage if isinstance(one, OF_CALLS)]


async def behaviour(query: Query) -> str:
    if query.document == "refused":
        raise ModelNotFound("publish it first")
    return query.document


@pytest.mark.parametrize(
    ("document", "code"), [("answered", grpc.StatusCode.OK), ("refused", grpc.StatusCode.NOT_FOUND)]
)
async def test_calls_leave_nothing_for_the_garbage_collector(
    document: str, code: grpc.StatusCode, tmp_path: Path
) -> None:
    request = pb.PredictorPredictRequest(runId="a", document=document)
    async with hosted(tmp_path, fake_predictor(behaviour)) as address, channel_to(address) as channel:
        stub = pb_grpc.PredictorStub(channel)
        with only_when_told():
            ended = [await stub.PredictorPredict(request).code() for _ in range(CALLS)]
            assert set(ended) == {code}
            assert Counter(type(one).__name__ for one in found()) == {}
