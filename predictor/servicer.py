"""prediction.Predictor: protobuf in, protobuf out, nothing else."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, Final

import grpc

from predictor.engine import InferenceEngine
from predictor.residency_messages import residency_response, resident_message
from predictor.traffic_messages import traffic_response
from serving.access.identity import Right
from serving.call import current_call
from serving.messages import LARGE_BATCH, delegated_query_of, predictor_batch_response_of, response_of
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.transport.service import Service, service

NAME = pb.DESCRIPTOR.services_by_name["Predictor"].full_name

# Tells processes apart: a frontend learns from it which models are here, and may be asked for together.
_REPLICA: Final = os.urandom(8).hex()

_RIGHTS: Final = {
    "PredictorPredict": Right.PREDICT,
    "PredictorPredictBatch": Right.PREDICT,
    "Load": Right.MANAGE,
    "Unload": Right.MANAGE,
    "Residency": Right.MANAGE,
    "Traffic": Right.MANAGE,
}

Context = grpc.aio.ServicerContext[Any, Any]


class PredictorServicer(pb_grpc.PredictorServicer):
    """Hands requests to the inference engine."""

    def __init__(self, engine: InferenceEngine) -> None:
        self._engine = engine

    async def PredictorPredict(  # noqa: N802 - the contract names it
        self, request: pb.PredictorPredictRequest, context: Context
    ) -> pb.PredictorPredictResponse:
        """Classify one document."""
        del context
        return response_of(
            pb.PredictorPredictResponse,
            await self._engine.predict(delegated_query_of(request), current_call().deadline),
        )

    async def PredictorPredictBatch(  # noqa: N802 - the contract names it
        self, request: pb.PredictorPredictBatchRequest, context: Context
    ) -> pb.PredictorPredictBatchResponse:
        """Classify many documents, each on its own."""
        del context
        answer = self._engine.predict_ready if request.ready_only else self._engine.predict_batch
        outcomes = await answer([delegated_query_of(item) for item in request.requests], current_call().deadline)
        # Thousands of answers take a while to write: the event loop goes on meanwhile.
        response = (
            await asyncio.to_thread(predictor_batch_response_of, outcomes)
            if len(outcomes) > LARGE_BATCH
            else predictor_batch_response_of(outcomes)
        )
        response.replica = _REPLICA
        return response

    async def Residency(  # noqa: N802 - the contract names it
        self, request: pb.ResidencyRequest, context: Context
    ) -> pb.ResidencyResponse:
        """List the models in memory."""
        del context
        response = residency_response(self._engine.residency(), request.runId, request.limit)
        response.replica = _REPLICA
        return response

    async def Load(  # noqa: N802 - the contract names it
        self, request: pb.LoadRequest, context: Context
    ) -> pb.LoadResponse:
        """Have a model in memory."""
        del context
        residents = self._engine.residency()
        lease = await self._engine.load(request.runId)
        with lease:
            return pb.LoadResponse(model=resident_message(lease.resident, residents, time.monotonic()))

    async def Unload(  # noqa: N802 - the contract names it
        self, request: pb.UnloadRequest, context: Context
    ) -> pb.UnloadResponse:
        """Let go of a model."""
        del context
        return pb.UnloadResponse(was_resident=self._engine.unload(request.runId))

    async def Traffic(  # noqa: N802 - the contract names it
        self, request: pb.TrafficRequest, context: Context
    ) -> pb.TrafficResponse:
        """List what models were asked and what they answered."""
        del context
        listed = self._engine.traffic().listed(request.runId, request.limit)
        return await asyncio.to_thread(traffic_response, listed) if len(listed) > 1 else traffic_response(listed)


def predictor_service(engine: InferenceEngine) -> Service:
    """Return the service for a host."""
    return service(NAME, pb_grpc.add_PredictorServicer_to_server, PredictorServicer(engine), _RIGHTS)
