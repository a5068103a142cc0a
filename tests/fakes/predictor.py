"""A fake predictor: its answers are a function of the query and may hang; a real predictor needs models and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from serving.domain.prediction import Query
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.transport.service import Service, service
from tests.builders import PREDICTOR


class FakePredictor(pb_grpc.PredictorServicer):
    """A servicer that answers each query with the result of ``behaviour``."""

    def __init__(self, behaviour: Callable[[Query], Awaitable[str]]) -> None:
        self._behaviour = behaviour

    async def PredictorPredict(self, request: pb.PredictorPredictRequest, context: Any) -> pb.PredictorPredictResponse:  # noqa: N802
        del context
        query = Query(request.runId, request.document, request.k)
        return pb.PredictorPredictResponse(label=await self._behaviour(query))

    async def PredictorPredictBatch(  # noqa: N802
        self, request: pb.PredictorPredictBatchRequest, context: Any
    ) -> pb.PredictorPredictBatchResponse:
        answers = [await self.PredictorPredict(item, context) for item in request.requests]
        return pb.PredictorPredictBatchResponse(results=[pb.PredictorPredictResult(response=item) for item in answers])


def fake_predictor(behaviour: Callable[[Query], Awaitable[str]]) -> Service:
    """Return the predictor's service with ``behaviour`` in place of its data plane."""
    # The fake need not implement every method of the service: the missing methods are UNIMPLEMENTED.
    kind: Any = FakePredictor
    return service(PREDICTOR, pb_grpc.add_PredictorServicer_to_server, kind(behaviour))


async def echo(query: Query) -> str:
    """Answer with the document."""
    return query.document


class HangingBehaviour:
    """A behaviour that does not answer before ``may_answer`` is set, and reports how its work ended."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.calls = 0

    async def __call__(self, query: Query) -> str:
        self.calls += 1
        self.started.set()
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return query.document
