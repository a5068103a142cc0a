"""Backends that keep Triton's counters of each model: one around coalescing, one between coalescing and the engine."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

from frontend.batching.coalescing import PredictNow
from frontend.batching.model_times import ModelTimes
from frontend.engines.backend import Backend, BatchingBackend
from frontend.engines.submission import BatchDone, Done, SubmitBatch, Withdraw, answer_of
from frontend.engines.wrapper import BackendWrapper
from serving.call.call import Call
from serving.domain.errors import ServingError
from serving.domain.prediction import Outcome, Prediction, Query


class TimedRequests(BackendWrapper[Backend]):
    """A :class:`~frontend.engines.backend.Backend` that counts requests and passes them on."""

    def __init__(self, backend: Backend, times: ModelTimes) -> None:
        super().__init__(backend)
        self._times = times

    def submit(self, query: Query, call: Call, done: Done) -> Withdraw | None:
        """Submit the query; ``done`` is called with its outcome."""
        started = time.perf_counter()

        def count(outcome: Prediction | Exception) -> None:
            if isinstance(outcome, Exception):
                self._times.failed(query.model_id, outcome)
            else:
                self._times.answered(query.model_id, outcome.model_version, 1, time.perf_counter() - started)
            done(outcome)

        inner = self._backend.submit(query, call, count)
        if inner is None:
            return None

        def withdraw() -> None:
            self._times.failed(query.model_id, asyncio.CancelledError())
            inner()

        return withdraw

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the model's answer to one query. Raises ServingError."""
        return await answer_of(self, query, call)

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        """Return the outcome of each query, in order. Raises ServingError."""
        started = time.perf_counter()
        try:
            outcomes = await self._backend.predict_batch(queries, call)
        except BaseException as error:
            for model_id in {query.model_id for query in queries}:
                self._times.failed(model_id, error)
            raise
        self._count(queries, outcomes, time.perf_counter() - started)
        return outcomes

    def _count(self, queries: Sequence[Query], outcomes: Sequence[Outcome], seconds: float) -> None:
        """Count each model's part of a batch as a request of its own, which failed if any of its documents failed."""
        parts: dict[str, list[Outcome]] = defaultdict(list)
        for query, outcome in zip(queries, outcomes, strict=True):
            parts[query.model_id].append(outcome)
        for model_id, part in parts.items():
            error = next((outcome for outcome in part if isinstance(outcome, ServingError)), None)
            version = next((outcome.model_version for outcome in part if isinstance(outcome, Prediction)), "")
            if error is None:
                self._times.answered(model_id, version, len(part), seconds)
            else:
                self._times.failed(model_id, error)


class TimedEngine(BackendWrapper[BatchingBackend]):
    """A :class:`~frontend.batching.coalescing.BatchingBackend` that counts executions and passes them on."""

    def __init__(self, backend: BatchingBackend, times: ModelTimes) -> None:
        super().__init__(backend)
        self._times = times

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the model's answer to one query. Raises ServingError."""
        started = time.perf_counter()
        answer = await self._backend.predict(query, call)
        self._count((query.model_id,), started)
        return answer

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        """Return the outcome of each query, in order. Raises ServingError."""
        started = time.perf_counter()
        outcomes = await self._backend.predict_batch(queries, call)
        # One request for each model, however many documents it has.
        self._count({query.model_id for query in queries}, started)
        return outcomes

    async def predict_ready(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome | None]:
        """Return the outcome of each query that can be answered at once, ``None`` for the others."""
        started = time.perf_counter()
        outcomes = await self._backend.predict_ready(queries, call)
        self._count_ready(queries, outcomes, started)
        return outcomes

    def timed(self, predict_now: PredictNow) -> PredictNow:
        """Return ``predict_now`` with its batches counted."""

        def predict_and_count(queries: Sequence[Query], call: Call) -> Sequence[Outcome | None]:
            started = time.perf_counter()
            outcomes = predict_now(queries, call)
            self._count_ready(queries, outcomes, started)
            return outcomes

        return predict_and_count

    def timed_submission(self, submit: SubmitBatch) -> SubmitBatch:
        """Return ``submit`` with its batches counted."""

        def submit_and_count(queries: Sequence[Query], call: Call, done: BatchDone) -> Withdraw | None:
            started = time.perf_counter()

            def count(outcomes: Sequence[Outcome | None] | Exception) -> None:
                if not isinstance(outcomes, Exception):
                    self._count_ready(queries, outcomes, started)
                done(outcomes)

            return submit(queries, call, count)

        return submit_and_count

    def _count_ready(self, queries: Sequence[Query], outcomes: Sequence[Outcome | None], started: float) -> None:
        answered = (query.model_id for query, outcome in zip(queries, outcomes, strict=True) if outcome is not None)
        self._count(answered, started)

    def _count(self, model_ids: Iterable[str], started: float) -> None:
        """Count a batch that the engine has answered; ``model_ids`` holds the model of each request in it."""
        seconds = time.perf_counter() - started
        executed: set[str] = set()
        for model_id in model_ids:
            times = self._times.get(model_id)
            if times is not None:
                times.engine_seconds += seconds
                if model_id not in executed:
                    executed.add(model_id)
                    times.executions += 1
