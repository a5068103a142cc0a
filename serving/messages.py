"""Between protobuf messages and the product's own terms. The messages of both services have the same fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import grpc

from serving.errors import InvalidRequest, ServingError, Status, error_of, status_of
from serving.prediction import Outcome, Prediction, Query, ScoredLabel, label_in
from serving.stubs import prediction_service_pb2 as pb

Request = TypeVar("Request", pb.PredictRequest, pb.PredictorPredictRequest)
Response = TypeVar("Response", pb.PredictResponse, pb.PredictorPredictResponse)

LARGE_BATCH = 256
"""Outcomes whose message is better made in a thread."""

_CODES = {code.value[0]: code for code in grpc.StatusCode if code is not grpc.StatusCode.OK}


def query_of(request: pb.PredictRequest | pb.PredictorPredictRequest) -> Query:
    """Return what a request asks."""
    return Query(request.runId, request.document, request.k)


def request_of(kind: type[Request], query: Query) -> Request:
    """Return the request that asks ``query``.

    Raises:
        InvalidRequest: a text of the query holds what UTF-8 cannot, as a lone surrogate, or k is out of range.
    """
    try:
        return kind(runId=query.model_id, document=query.document, k=query.k)
    except ValueError as error:
        raise _unfit() from error


def _unfit() -> InvalidRequest:
    return InvalidRequest("runId and document must be text that UTF-8 can hold, and k at least 0")


def batch_request_of(queries: Sequence[Query], *, ready_only: bool = False) -> pb.PredictorPredictBatchRequest:
    """Return the predictor's request that asks all of ``queries``. Raises as :func:`request_of` does."""
    batch = pb.PredictorPredictBatchRequest(ready_only=ready_only)
    # Made in place: a message that is put into another is copied.
    add = batch.requests.add
    try:
        for query in queries:
            add(runId=query.model_id, document=query.document, k=query.k)
    except ValueError as error:
        raise _unfit() from error
    return batch


def prediction_of(response: pb.PredictResponse | pb.PredictorPredictResponse) -> Prediction:
    """Return what a response answers."""
    best = tuple([ScoredLabel(scored.label, scored.score) for scored in response.best]) if response.best else ()
    label = response.label or label_in(response.response)
    model = response.model
    return Prediction(label, response.score, best, model.id, model.version)


def response_of(kind: type[Response], prediction: Prediction) -> Response:
    """Return the response that answers ``prediction``."""
    response = kind()
    _fill(response, prediction)
    return response


def outcomes_of(batch: pb.PredictBatchResponse | pb.PredictorPredictBatchResponse) -> list[Outcome]:
    """Return the outcome of each query of a batch."""
    return [_outcome_of(result) for result in batch.results]


def ready_outcomes_of(batch: pb.PredictorPredictBatchResponse) -> list[Outcome | None]:
    """Return the outcome of each query of a batch that was to be answered at once; ``None`` where it could not be."""
    return [_outcome_of(result) if result.WhichOneof("outcome") else None for result in batch.results]


def _outcome_of(result: pb.PredictResult | pb.PredictorPredictResult) -> Outcome:
    if result.HasField("status"):
        return error_of(Status(_CODES.get(result.status.code, grpc.StatusCode.INTERNAL), result.status.message))
    return prediction_of(result.response)


def batch_response_of(outcomes: Sequence[Outcome]) -> pb.PredictBatchResponse:
    """Return the frontend's response to a batch."""
    batch = pb.PredictBatchResponse()
    for outcome in outcomes:
        _fill_result(batch.results.add(), outcome)
    return batch


def predictor_batch_response_of(outcomes: Sequence[Outcome | None]) -> pb.PredictorPredictBatchResponse:
    """Return the predictor's response to a batch."""
    batch = pb.PredictorPredictBatchResponse()
    for outcome in outcomes:
        result = batch.results.add()
        if outcome is not None:
            _fill_result(result, outcome)
    return batch


def _fill_result(result: pb.PredictResult | pb.PredictorPredictResult, outcome: Outcome) -> None:
    """Write what the result of one query in a batch holds: its response, or its status."""
    if isinstance(outcome, ServingError):
        status = status_of(outcome)
        result.status.code, result.status.message = status.code.value[0], status.message
    else:
        _fill(result.response, outcome)


def _fill(response: pb.PredictResponse | pb.PredictorPredictResponse, prediction: Prediction) -> None:
    # Written in place: messages that are made one by one and put into each other cost four times as much.
    response.response = prediction.response
    response.label = prediction.label
    response.score = prediction.score
    for scored in prediction.best:
        response.best.add(label=scored.label, score=scored.score)
    model = response.model
    model.id = prediction.model_id
    model.version = prediction.model_version
