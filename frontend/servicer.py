"""prediction.PredictionService: protobuf in, protobuf out, nothing else."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc

from frontend.backends.thresholds import unexplained
from frontend.predictions import RoutedPredictions
from serving.access.identity import Right
from serving.call import current_call
from serving.errors import ServingError
from serving.messages import (
    LARGE_BATCH,
    batch_response_of,
    explain_response_of,
    query_of,
    query_to_explain,
    response_of,
)
from serving.prediction import Outcome, Prediction, Query
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.transport.service import Service, service

NAME = pb.DESCRIPTOR.services_by_name["PredictionService"].full_name

_RIGHTS: Final = {"Predict": Right.PREDICT, "PredictBatch": Right.PREDICT, "Explain": Right.EXPLAIN}

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
        return response_of(pb.PredictResponse, await self._answer(query_of(request)))

    async def PredictBatch(  # noqa: N802 - the contract names it
        self, request: pb.PredictBatchRequest, context: Context
    ) -> pb.PredictBatchResponse:
        """Classify many documents, each on its own."""
        del context
        queries = [query_of(item) for item in request.requests]
        call = current_call()
        notes = call.notes
        notes.queries = queries
        outcomes = await self._predictions.predict_batch(queries, call)
        outcomes = [_with_what_was_asked(query, outcome) for query, outcome in zip(queries, outcomes, strict=True)]
        notes.outcomes = outcomes
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
        return explain_response_of(await self._answer(query_to_explain(request)))

    async def _answer(self, query: Query) -> Prediction:
        call = current_call()
        call.notes.query = query
        outcome = _with_what_was_asked(query, await self._predictions.predict(query, call))
        if isinstance(outcome, ServingError):
            raise outcome
        call.notes.answer = outcome
        return outcome


def _with_what_was_asked(query: Query, outcome: Outcome) -> Outcome:
    """Return the outcome, or an error where an explanation is missing: predictors of old know nothing of it."""
    if query.explain is not None and isinstance(outcome, Prediction) and outcome.explanation is None:
        return unexplained()
    return outcome


def prediction_service(predictions: RoutedPredictions) -> Service:
    """Return the service for a host."""
    return service(NAME, pb_grpc.add_PredictionServiceServicer_to_server, PredictionServicer(predictions), _RIGHTS)
