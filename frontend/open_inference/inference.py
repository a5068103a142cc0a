"""Inferences through the data plane of ``Predict``: catalog, router, coalescing. Independent of the transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from frontend.open_inference.documents import documents_of
from frontend.open_inference.models import NamedModel, NamedModels, in_words_of_the_protocol, unknown_version
from frontend.open_inference.outputs import WantedOutputs
from frontend.open_inference.statistics import InferenceStatistics, Times
from frontend.open_inference.tensors import InferenceAnswer, InferenceRequest, OutputTensor
from frontend.predictions.predictions import RoutedPredictions
from serving.call.call import Call
from serving.call.deadline import Deadline
from serving.domain.errors import DeadlineExceeded, ServingError, Unavailable, copy_for_raise
from serving.domain.model_id import ModelId, reference_of
from serving.domain.prediction import Outcome, Prediction, Query


class Inferences:
    """Data plane of the protocol.

    Args:
        models: finds models.
        predictions: answers queries.
        statistics: counts requests.
        max_documents: maximum number of documents in one request.
    """

    def __init__(
        self, models: NamedModels, predictions: RoutedPredictions, statistics: InferenceStatistics, max_documents: int
    ) -> None:
        self._models = models
        self._predictions = predictions
        self._statistics = statistics
        self._max_documents = max_documents

    async def infer(self, request: InferenceRequest, call: Call) -> InferenceAnswer:
        """Return the model's answer.

        Raises:
            ServingError: there is no answer; if some of several documents fail, or they fail differently, the message
                names the row.
        """
        if request.timeout_seconds is None:
            return await self._answered(request, call)
        deadline = min(call.deadline, Deadline.after(request.timeout_seconds))
        try:
            async with asyncio.timeout(deadline.remaining()):
                return await self._answered(request, call.with_deadline(deadline))
        except TimeoutError as error:
            raise DeadlineExceeded("the timeout of the request has passed") from error

    async def _answered(self, request: InferenceRequest, call: Call) -> InferenceAnswer:
        started = time.perf_counter_ns()
        model = await self._models.find(request.model, request.version)
        found = time.perf_counter_ns()
        try:
            documents = documents_of(request.inputs, self._max_documents)
            wanted = WantedOutputs(request.outputs, model.manifest)
            sent = time.perf_counter_ns()
            key = request.key
            if not key and model.requested != model.id and len(documents) > 1:
                # All rows of one request are routed to the same side of a canary.
                key = call.request_id
            queries = wanted.queries(model.requested, documents, request.threshold, key)
            predictions = await self._of_one_version(queries, model, call)
            answered = time.perf_counter_ns()
            if model.is_versioned:
                former, model = model, await self._answering(predictions, model)
                version = model.version
                if model.id != former.id:
                    wanted = WantedOutputs(request.outputs, model.manifest, queries[0].k)
            else:
                version = _version_of(predictions, model, request.version)
            outputs = await _written(wanted, predictions, request.inputs[0].shape)
        except BaseException:
            self._statistics.count_failure(model, time.perf_counter_ns() - started)
            raise
        took = Times(found - started, sent - found, answered - sent, time.perf_counter_ns() - answered)
        self._statistics.count_success(model, version, len(documents), took)
        return InferenceAnswer(model.name, version, outputs)

    async def _of_one_version(self, queries: Sequence[Query], model: NamedModel, call: Call) -> Sequence[Prediction]:
        with in_words_of_the_protocol():
            predictions = await self._predicted(queries, call)
            if model.is_versioned and len({prediction.model_id for prediction in predictions}) > 1:
                # The canary failed for some rows, and stable answered those: have stable answer all rows.
                predictions = await self._predicted([query._replace(model_id=model.id) for query in queries], call)
        return predictions

    async def _answering(self, predictions: Sequence[Prediction], model: NamedModel) -> NamedModel:
        """Return the model of the version that answered."""
        version = reference_of(ModelId(predictions[0].model_id)).selector
        return model if version in ("", model.version) else await self._models.find(model.name, version)

    async def _predicted(self, queries: Sequence[Query], call: Call) -> Sequence[Prediction]:
        notes = call.notes
        if len(queries) == 1:
            notes.query = queries[0]
            notes.answer = answer = await self._predictions.predict(queries[0], call)
            return [answer]
        notes.queries = queries
        notes.outcomes = outcomes = await self._predictions.predict_batch(queries, call)
        return _all_answered(outcomes)


def _all_answered(outcomes: Sequence[Outcome]) -> list[Prediction]:
    predictions: list[Prediction] = []
    for row, outcome in enumerate(outcomes):
        if isinstance(outcome, ServingError):
            raise _error_of_row(row, outcome, outcomes)
        predictions.append(outcome)
    return predictions


def _error_of_row(row: int, error: ServingError, outcomes: Sequence[Outcome]) -> ServingError:
    fresh = copy_for_raise(error)
    # Do not blame a row for an error that all rows share.
    if any(str(outcome) != str(error) for outcome in outcomes):
        fresh.args = (f"row {row} of {len(outcomes)}: {error}",)
    return fresh


async def _written(
    wanted: WantedOutputs, predictions: Sequence[Prediction], shape: tuple[int, ...]
) -> Sequence[OutputTensor]:
    # Explanations have a number for each token and take a while to serialize; a thread keeps the event loop free.
    if wanted.explained:
        return await asyncio.to_thread(wanted.tensors_of, predictions, shape)
    return wanted.tensors_of(predictions, shape)


def _version_of(predictions: Sequence[Prediction], model: NamedModel, wanted: str) -> str:
    """Return the version that answered."""
    # Without a version in the manifest, engines report versions of their own; the book's predictors report none.
    versions = {model.manifest.model_version and prediction.model_version for prediction in predictions}
    if len(versions) > 1:
        raise Unavailable("the model was replaced while it answered; ask again")
    version = versions.pop() or model.version
    if wanted not in ("", version):
        raise unknown_version()
    return version
