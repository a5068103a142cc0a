"""Conversion between protobuf messages and the domain's types, as the services need it beyond the client's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import monotonic
from typing import TypeVar

from intent_serving_client.messages import DECIMALS, fill_request, outcome_of
from serving.domain.errors import ServingError, status_of
from serving.domain.prediction import Outcome, PathStep, Prediction, Query
from serving.stubs import prediction_service_pb2 as pb

Response = TypeVar("Response", pb.PredictResponse, pb.PredictorPredictResponse)

LARGE_BATCH = 256
"""Number of outcomes above which their message is better built in a thread."""


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
    return round(request.threshold, DECIMALS) if request.HasField("threshold") else None


def batch_request_of(queries: Sequence[Query], *, ready_only: bool = False) -> pb.PredictorPredictBatchRequest:
    """Return the request to a predictor for all of ``queries``. Raises as :func:`request_of` does."""
    batch = pb.PredictorPredictBatchRequest(ready_only=ready_only)
    # Built in place: a message that is added to another is copied.
    add = batch.requests.add
    for query in queries:
        fill_request(add(), query)
    return batch


def response_of(kind: type[Response], prediction: Prediction) -> Response:
    """Return the response with ``prediction``."""
    response = kind()
    _fill(response, prediction)
    return response


def explain_response_of(prediction: Prediction) -> pb.ExplainResponse:
    """Return the response with ``prediction``, which has an explanation."""
    response = pb.ExplainResponse(label=prediction.label, score=prediction.score)
    _fill_reasons(response, prediction)
    response.path.extend(map(path_step_of, prediction.path))
    return response


def ready_outcomes_of(batch: pb.PredictorPredictBatchResponse) -> list[Outcome | None]:
    """Return the outcome of each query of a ``ready_only`` batch; ``None`` for those that were not answered at once."""
    return [ready_outcome_of(result) for result in batch.results]


def ready_outcome_of(result: pb.PredictorPredictResult) -> Outcome | None:
    """Return the outcome of one query of a ``ready_only`` batch; ``None`` if it was not answered at once."""
    return outcome_of(result) if result.WhichOneof("outcome") else None


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
    # Predictors know no pipelines.
    if isinstance(response, pb.PredictResponse):
        response.path.extend(map(path_step_of, prediction.path))


def path_step_of(step: PathStep) -> pb.PathStep:
    """Return the message of a step of a pipeline."""
    return pb.PathStep(
        name=step.name,
        models=[pb.ModelIdentity(id=model.model_id, version=model.version) for model in step.models],
        label=step.label,
        score=step.score,
        milliseconds=step.seconds * 1e3,
        onward=pb.Onward.Value(step.onward.name),
        next=step.next,
        code=step.code.value[0],
        path=map(path_step_of, step.path),
        votes=[pb.ScoredLabel(label=label, score=score) for label, score in step.votes],
        fallback=None if step.fallback is None else pb.Fallback(**step.fallback.as_dict()),
    )


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
        message.model_id = explanation.model_id
        for part in explanation.labels:
            message.labels.add(label=part.label, logit=part.logit, bias=part.bias, contributions=part.contributions)
