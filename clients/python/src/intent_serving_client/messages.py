"""Requests from queries, and answers from responses. The messages of both services have the same fields."""

from __future__ import annotations

import math
from collections.abc import Iterable
from time import monotonic
from typing import Final, TypeVar

import grpc

from intent_serving_client.errors import InvalidRequest, Status, error_of
from intent_serving_client.explanation import Explanation, LabelExplanation
from intent_serving_client.prediction import (
    Fallback,
    ModelVersion,
    Onward,
    Outcome,
    PathStep,
    Prediction,
    Query,
    ScoredLabel,
    label_in,
)
from intent_serving_client.stubs import prediction_service_pb2 as pb

Request = TypeVar("Request", pb.PredictRequest, pb.PredictorPredictRequest)

DECIMALS: Final = 7
"""Decimals of a threshold that survive the wire: 0.7 arrives as 0.7, not as 0.699999988."""

# Minimum of the seconds left: 0 on the wire means as long as the call's own deadline.
_SOON = 1e-6

_CODES = {code.value[0]: code for code in grpc.StatusCode if code is not grpc.StatusCode.OK}


def request_of(kind: type[Request], query: Query) -> Request:
    """Return the request for ``query``.

    Raises:
        InvalidRequest: a text of the query cannot be encoded in UTF-8, as with a lone surrogate, or k is out of range.
    """
    request = kind()
    fill_request(request, query)
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


def fill_request(request: pb.PredictRequest | pb.PredictorPredictRequest, query: Query) -> None:
    """Fill the request for ``query``. Raises as :func:`request_of` does."""
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
        _path_of(response.path) if isinstance(response, pb.PredictResponse) and response.path else (),
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
        _path_of(response.path),
    )


def _path_of(messages: Iterable[pb.PathStep]) -> tuple[PathStep, ...]:
    return tuple(
        PathStep(
            message.name,
            tuple(ModelVersion(model.id, model.version) for model in message.models),
            message.label,
            message.score,
            message.milliseconds / 1e3,
            Onward[pb.Onward.Name(message.onward)],
            message.next,
            _CODES.get(message.code, grpc.StatusCode.OK),
            _path_of(message.path),
            tuple(ScoredLabel(vote.label, vote.score) for vote in message.votes),
            _fallback_of(message.fallback) if message.HasField("fallback") else None,
        )
        for message in messages
    )


def _fallback_of(message: pb.Fallback) -> Fallback:
    return Fallback(ScoredLabel(message.best_label, message.best_score), round(message.threshold, DECIMALS))


def _explanation_of(message: pb.Explanation) -> Explanation:
    labels = tuple(
        LabelExplanation(part.label, part.logit, part.bias, tuple(part.contributions)) for part in message.labels
    )
    return Explanation(tuple(message.tokens), tuple(message.unknown), labels, message.temperature, message.model_id)


def outcomes_of(batch: pb.PredictBatchResponse | pb.PredictorPredictBatchResponse) -> list[Outcome]:
    """Return the outcome of each query of a batch."""
    return [outcome_of(result) for result in batch.results]


def outcome_of(result: pb.PredictResult | pb.PredictorPredictResult) -> Outcome:
    """Return the outcome in the result of one query of a batch."""
    if result.HasField("status"):
        error = error_of(Status(_CODES.get(result.status.code, grpc.StatusCode.INTERNAL), result.status.message))
        error.retry_after = result.status.retry_after or None
        return error
    return prediction_of(result.response)
