"""Attempts of predictions that a service cannot answer at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from intent_serving_client import AsyncIntentClient, ChannelOptions, IntentClient, Unavailable
from intent_serving_client.stubs import prediction_service_pb2 as pb
from tests.builders import PATIENCE


class FakeStarting:
    """A service that refuses its first calls with UNAVAILABLE."""

    def __init__(self) -> None:
        self.refusals = 0
        self.calls = 0

    async def predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        self.calls += 1
        if self.calls <= self.refusals:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        return pb.PredictResponse(label=request.document, score=1.0)


@pytest.fixture
async def starting() -> AsyncIterator[tuple[FakeStarting, str]]:
    server, service = grpc.aio.server(), FakeStarting()
    method = grpc.unary_unary_rpc_method_handler(
        service.predict,
        request_deserializer=pb.PredictRequest.FromString,
        response_serializer=pb.PredictResponse.SerializeToString,
    )
    handlers: Any = {"Predict": method}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("prediction.PredictionService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield service, f"127.0.0.1:{port}"
    await server.stop(None)


async def label(kind: str, address: str, attempts: int) -> str:
    options = ChannelOptions(attempts=attempts, fast=kind == "fast")
    if kind == "blocking":
        with IntentClient(address, timeout=PATIENCE, options=options) as client:
            return (await asyncio.to_thread(client.predict, "a", "x")).label
    async with AsyncIntentClient(address, timeout=PATIENCE, options=options) as asyncio_client:
        return (await asyncio_client.predict("a", "x")).label


@pytest.mark.parametrize("kind", ["blocking", "asyncio", "fast"])
async def test_a_prediction_is_attempted_as_often_as_the_options_say(
    kind: str, starting: tuple[FakeStarting, str]
) -> None:
    service, address = starting
    service.refusals = 2

    assert await label(kind, address, attempts=3) == "x"
    assert service.calls == 3

    service.calls = 0
    with pytest.raises(Unavailable):
        await label(kind, address, attempts=2)
    assert service.calls == 2

    service.calls = 0
    with pytest.raises(Unavailable):
        await label(kind, address, attempts=1)
    assert service.calls == 1
