"""Conversion between protobuf messages and the domain's types. The messages of both services have the same fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import monotonic
from typing import TypeVar

import grpc

from serving.domain.errors import InvalidRequest, ServingError, Status, error_of, status_of
from serving.domain.explanation import Explanation, LabelExplanation
from serving.domain.prediction import Fallback, Outcome, Prediction, Query, ScoredLabel, label_in
from serving.stubs import prediction_service_pb2 as pb

Request = TypeVar("Request", pb.PredictRequest, pb.PredictorPredictRequest)
Response = TypeVar("Response", pb.PredictResponse, pb.PredictorPredictResponse)

LARGE_BATCH = 256
"""Number of outcomes above which their message is better built in a thread."""

# Decimals of a threshold that survive the wire: 0.7 arrives as 0.7, not as 0.699999988.
_DECIMALS = 7

# Minimum of the seconds left: 0 on the wire means as long as the call's own deadline.
_SOON = 1e-6

_CODES = {code.value[0]: code for code in grpc.StatusCode if code is not grpc.StatusCode.OK}


def query_of(request: pb.PredictRequest) -> Query:
    """Return the query in a caller's request."""
    return Query(
        request.runId, request.document, request.k, _threshold_in(request), _explained_in(request), request.key
    )


def delegated_query_of(request: pb.PredictorPredictRequest) -> Query:
    """Return the query that a frontend sends on behalf of its caller."""
    seconds_left = request.seconds_left
    return Query(
        request.runId,
        request.document,
        request.k,
        _threshold_in(request),
        _explained_in(request),
        "",
        request.caller,
        monotonic() + seconds_left if seconds_left else math.inf,
    )


def query_to_explain(request: pb.ExplainRequest) -> Query:
    """Return the query in a request for an explanation."""
    return Query(
        request.runId,
        request.document,
        threshold=_threshold_in(request),
        explain=tuple(request.labels),
        key=request.key,
    )


def _explained_in(request: pb.PredictRequest | pb.PredictorPredictRequest) -> tuple[str, ...] | None:
    return tuple(request.explain_labels) if request.explain else None


def _threshold_in(request: pb.PredictRequest | pb.PredictorPredictRequest | pb.ExplainRequest) -> float | None:
    return round(request.threshold, _DECIMALS) if request.HasField("threshold") else None


def request_of(kind: type[Request], query: Query) -> Request:
    """Return the request for ``query``.

    Raises:
        InvalidRequest: a text of the query cannot be encoded in UTF-8, as with a lone surrogate, or k is out of range.
    """
    request = kind()
    _fill_request(request, query)
    return request


def explain_request_of(query: Query) -> pb.ExplainRequest:
    """Return the request for the explanation of ``query``. Raises as :func:`request_of` does."""
    try:
        return pb.ExplainRequest(
            runId=query.model_id,
            document=query.document,
            labels=query.explain,
            threshold=query.threshold,
            key=query.key,
        )
    except ValueError as error:
        raise _unfit() from error


def _fill_request(request: pb.PredictRequest | pb.PredictorPredictRequest, query: Query) -> None:
    try:
        request.runId, request.document, request.k = query.model_id, query.document, query.k
        if query.threshold is not None:
            request.threshold = query.threshold
        if query.explain is not None:
            request.explain = True
            request.explain_labels.extend(query.explain)
        if isinstance(request, pb.PredictorPredictRequest):
            if query.caller:
                request.caller = query.caller
            if query.until != math.inf:
                request.seconds_left = max(query.until - monotonic(), _SOON)
        elif query.key:
            request.key = query.key
    except ValueError as error:
        raise _unfit() from error


def _unfit() -> InvalidRequest:
    return InvalidRequest("runId, document and labels must be text that UTF-8 can encode, and k must be at least 0")


def batch_request_of(queries: Sequence[Query], *, ready_only: bool = False) -> pb.PredictorPredictBatchRequest:
    """Return the request to a predictor for all of ``queries``. Raises as :func:`request_of` does."""
    batch = pb.PredictorPredictBatchRequest(ready_only=ready_only)
    # Built in place: a message that is added to another is copied.
    add = batch.requests.add
    for query in queries:
        _fill_request(add(), query)
    return batch


def prediction_of(response: pb.PredictResponse | pb.PredictorPredictResponse) -> Prediction:
    """Return the prediction in a response."""
    best = tuple([ScoredLabel(scored.label, scored.score) for scored in response.best]) if response.best else ()
    label = response.label or label_in(response.response)
    model = response.model
    return Prediction(
        label,
        response.score,
        best,
        model.id,
        model.version,
        _fallback_of(response.fallback) if response.HasField("fallback") else None,
        _explanation_of(response.explanation) if response.HasField("explanation") else None,
    )


def explained_prediction_of(response: pb.ExplainResponse) -> Prediction:
    """Return the prediction, with its explanation, in a response to a request for an explanation."""
    return Prediction(
        response.label,
        response.score,
        (),
        response.model.id,
        response.model.version,
        _fallback_of(response.fallback) if response.HasField("fallback") else None,
        _explanation_of(response.explanation),
    )


def _fallback_of(message: pb.Fallback) -> Fallback:
    return Fallback(ScoredLabel(message.best_label, message.best_score), round(message.threshold, _DECIMALS))


def _explanation_of(message: pb.Explanation) -> Explanation:
    labels = tuple(
        LabelExplanation(part.label, part.logit, part.bias, tuple(part.contributions)) for part in message.labels
    )
    return Explanation(tuple(message.tokens), tuple(message.unknown), labels, message.temperature)


def response_of(kind: type[Response], prediction: Prediction) -> Response:
    """Return the response with ``prediction``."""
    response = kind()
    _fill(response, prediction)
    return response


def explain_response_of(prediction: Prediction) -> pb.ExplainResponse:
    """Return the response with ``prediction``, which has an explanation."""
    response = pb.ExplainResponse(label=prediction.label, score=prediction.score)
    _fill_reasons(response, prediction)
    return response


def outcomes_of(batch: pb.PredictBatchResponse | pb.PredictorPredictBatchResponse) -> list[Outcome]:
    """Return the outcome of each query of a batch."""
    return [_outcome_of(result) for result in batch.results]


def ready_outcomes_of(batch: pb.PredictorPredictBatchResponse) -> list[Outcome | None]:
    """Return the outcome of each query of a ``ready_only`` batch; ``None`` for those that were not answered at once."""
    return [ready_outcome_of(result) for result in batch.results]


def ready_outcome_of(result: pb.PredictorPredictResult) -> Outcome | None:
    """Return the outcome of one query of a ``ready_only`` batch; ``None`` if it was not answered at once."""
    return _outcome_of(result) if result.WhichOneof("outcome") else None


def _outcome_of(result: pb.PredictResult | pb.PredictorPredictResult) -> Outcome:
    if result.HasField("status"):
        error = error_of(Status(_CODES.get(result.status.code, grpc.StatusCode.INTERNAL), result.status.message))
        error.retry_after = result.status.retry_after or None
        return error
    return prediction_of(result.response)


def batch_response_of(outcomes: Sequence[Outcome]) -> pb.PredictBatchResponse:
    """Return the frontend's response to a batch."""
    batch = pb.PredictBatchResponse()
    for outcome in outcomes:
        fill_result(batch.results.add(), outcome)
    return batch


def predictor_batch_response_of(outcomes: Sequence[Outcome | None]) -> pb.PredictorPredictBatchResponse:
    """Return the predictor's response to a batch."""
    batch = pb.PredictorPredictBatchResponse()
    for outcome in outcomes:
        result = batch.results.add()
        if outcome is not None:
            fill_result(result, outcome)
    return batch


def fill_result(result: pb.PredictResult | pb.PredictorPredictResult, outcome: Outcome) -> None:
    """Fill the result of one query of a batch with its response or its status."""
    if isinstance(outcome, ServingError):
        status = status_of(outcome)
        result.status.code, result.status.message = status.code.value[0], status.message
        if outcome.retry_after is not None:
            result.status.retry_after = outcome.retry_after
    else:
        _fill(result.response, outcome)


def _fill(response: pb.PredictResponse | pb.PredictorPredictResponse, prediction: Prediction) -> None:
    # Built in place: messages that are built one by one and added to each other cost four times as much.
    response.response = prediction.response
    response.label = prediction.label
    response.score = prediction.score
    for scored in prediction.best:
        response.best.add(label=scored.label, score=scored.score)
    _fill_reasons(response, prediction)


def _fill_reasons(
    response: pb.PredictResponse | pb.PredictorPredictResponse | pb.ExplainResponse, prediction: Prediction
) -> None:
    model = response.model
    model.id = prediction.model_id
    model.version = prediction.model_version
    fallback = prediction.fallback
    if fallback is not None:
        response.fallback.best_label, response.fallback.best_score = fallback.best
        response.fallback.threshold = fallback.threshold
    explanation = prediction.explanation
    if explanation is not None:
        message = response.explanation
        message.tokens.extend(explanation.tokens)
        message.unknown.extend(explanation.unknown)
        message.temperature = explanation.temperature
        for part in explanation.labels:
            message.labels.add(label=part.label, logit=part.logit, bias=part.bias, contributions=part.contributions)
