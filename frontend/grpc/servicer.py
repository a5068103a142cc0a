"""Servicer of prediction.PredictionService: conversion from and to protobuf, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from frontend.engines.thresholds import unexplained
from frontend.predictions.predictions import RoutedPredictions
from serving.call.call import Call
from serving.call.identity import Right
from serving.domain.prediction import Outcome, Prediction, Query
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.transport.served_call import ServedCall
from serving.transport.service import Service, service
from serving.wire.answer_bytes import answer_bytes
from serving.wire.messages import (
    LARGE_BATCH,
    batch_response_of,
    explain_response_of,
    query_of,
    query_to_explain,
)

NAME = pb.DESCRIPTOR.services_by_name["PredictionService"].full_name

_RIGHTS: Final = {"Predict": Right.PREDICT, "PredictBatch": Right.PREDICT, "Explain": Right.EXPLAIN}


class PredictionServicer:
    """Servicer that passes requests to the data plane."""

    def __init__(self, predictions: RoutedPredictions) -> None:
        self._predictions = predictions

    def Predict(self, request: pb.PredictRequest, served: ServedCall) -> None:
        """Classify one document."""
        self._submit(query_of(request), served, answer_bytes)

    def Explain(self, request: pb.ExplainRequest, served: ServedCall) -> None:
        """Classify one document, and return the contribution of each token to the logits."""
        self._submit(query_to_explain(request), served, _explanation_bytes)

    async def PredictBatch(self, request: pb.PredictBatchRequest, call: Call) -> pb.PredictBatchResponse:
        """Classify many documents, each independently."""
        queries = [query_of(item) for item in request.requests]
        notes = call.notes
        notes.queries = queries
        outcomes = await self._predictions.predict_batch(queries, call)
        outcomes = [_unless_unexplained(query, outcome) for query, outcome in zip(queries, outcomes, strict=True)]
        notes.outcomes = outcomes
        # Thousands of answers take a while to serialize; a thread keeps the event loop free.
        return (
            await asyncio.to_thread(batch_response_of, outcomes)
            if len(outcomes) > LARGE_BATCH
            else batch_response_of(outcomes)
        )

    def _submit(self, query: Query, served: ServedCall, bytes_of: Callable[[Prediction], bytes]) -> None:
        served.query = query

        def done(outcome: Prediction | Exception) -> None:
            if query.explain is not None and isinstance(outcome, Prediction):
                outcome = _unless_unexplained(query, outcome)
            if isinstance(outcome, Exception):
                served.fail(outcome)
            else:
                served.answer = outcome
                served.send(bytes_of(outcome))

        served.on_leave = self._predictions.submit(query, served, done)


def _explanation_bytes(prediction: Prediction) -> bytes:
    return explain_response_of(prediction).SerializeToString()


def _unless_unexplained(query: Query, outcome: Outcome) -> Outcome:
    """Return the outcome, or an error if a requested explanation is missing: old predictors do not support it."""
    if query.explain is not None and isinstance(outcome, Prediction) and outcome.explanation is None:
        return unexplained()
    return outcome


def prediction_service(predictions: RoutedPredictions) -> Service:
    """Return the service for a host."""
    return service(NAME, pb_grpc.add_PredictionServiceServicer_to_server, PredictionServicer(predictions), _RIGHTS)
