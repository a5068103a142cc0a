"""prediction.PredictionService: protobuf in, protobuf out, nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from frontend.predictions import RoutedPredictions
from serving.call import current_call
from serving.messages import (
    LARGE_BATCH,
    batch_response_of,
    explain_response_of,
    query_of,
    query_to_explain,
    response_of,
)
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.transport.service import Service, service

NAME = pb.DESCRIPTOR.services_by_name["PredictionService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]


class PredictionServicer(pb_grpc.PredictionServiceServicer):
    """Hands requests to the data plane."""

    def __init__(self, predictions: RoutedPredictions) -> None:
        self._predictions = predictions

    async def Predict(  # noqa: N802 - the contract names it
        self, request: pb.PredictRequest, context: Context
    ) -> pb.PredictResponse:
        """Classify one document."""
        del context
        return response_of(pb.PredictResponse, await self._predictions.predict(query_of(request), current_call()))

    async def PredictBatch(  # noqa: N802 - the contract names it
        self, request: pb.PredictBatchRequest, context: Context
    ) -> pb.PredictBatchResponse:
        """Classify many documents, each on its own."""
        del context
        outcomes = await self._predictions.predict_batch([query_of(item) for item in request.requests], current_call())
        # Thousands of answers take a while to write: the event loop goes on meanwhile.
        return (
            await asyncio.to_thread(batch_response_of, outcomes)
            if len(outcomes) > LARGE_BATCH
            else batch_response_of(outcomes)
        )

    async def Explain(  # noqa: N802 - the contract names it
        self, request: pb.ExplainRequest, context: Context
    ) -> pb.ExplainResponse:
        """Classify one document, and tell what each of its tokens adds to the logits."""
        del context
        return explain_response_of(await self._predictions.predict(query_to_explain(request), current_call()))


def prediction_service(predictions: RoutedPredictions) -> Service:
    """Return the service for a host."""
    return service(NAME, pb_grpc.add_PredictionServiceServicer_to_server, PredictionServicer(predictions))
