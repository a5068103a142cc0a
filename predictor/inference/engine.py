"""Answers queries: a lease on the model, then the model's answer. Independent of protobuf and of the transport."""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Final, NamedTuple, TypeAlias

import structlog

from predictor.cache.model_manager import ModelManager
from predictor.cache.residency import Lease, ResidentModels
from predictor.inference.costs import cost_for, is_short, is_short_for
from predictor.inference.joint_pass import ModelQuery, answers_together
from predictor.inference.spans import begin_inference, inference
from predictor.inference.traffic_registry import TrafficRegistry
from predictor.inference.work_queue import WorkQueue
from predictor.model.intent_model import IntentModel
from predictor.model.traffic_counter import TrafficCounter
from serving.call.call import Call, span_of_call
from serving.call.closing import close_in_order
from serving.call.deadline import NEVER, Deadline
from serving.call.slots import released_slot
from serving.domain.errors import INTERNAL_MESSAGE, DeadlineExceeded, ServingError
from serving.domain.model_id import ModelId, parse_model_id
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.query_limits import QueryLimits

log = structlog.get_logger()

Answers: TypeAlias = Callable[[ModelId, Sequence[Query], Deadline], Awaitable[Sequence[Outcome | None]]]
Check: TypeAlias = Callable[[Query, ModelId], None]
"""Raises ServingError if a query is not permitted."""

MOST_WAITING: Final = 1024
# A batch with more queries is answered in several turns of the event loop.
_INLINE_QUERIES: Final = 64
# This many queries of one model are answered faster in a separate pass than together with queries of other models.
_PASS_OF_ITS_OWN: Final = 8
# More models gain nothing, and the intermediate results for all of them take memory.
MOST_MODELS_IN_A_PASS: Final = 64


class _Ready(NamedTuple):
    """Queries of a model that is in memory."""

    lease: Lease[IntentModel]
    members: Sequence[int]
    """Indices of the outcomes of the queries."""
    queries: Sequence[Query]


class InferenceEngine:
    """The predictor's data plane.

    Args:
        manager: grants leases on models.
        limits: bounds on queries and batches.
        traffic: counts the answers of the models.
        threads: size of the thread pool for documents and batches that are too long for the event loop.
        most_waiting: maximum number of these that wait for a thread; further ones are refused.
        most_models_in_a_pass: maximum number of models that answer in one pass.
        clock: measures how long work in threads takes, in seconds.
    """

    def __init__(
        self,
        manager: ModelManager[IntentModel],
        limits: QueryLimits,
        traffic: TrafficRegistry,
        *,
        threads: int,
        most_waiting: int = MOST_WAITING,
        most_models_in_a_pass: int = MOST_MODELS_IN_A_PASS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._manager = manager
        self._limits = limits
        self._traffic = traffic
        self._most_models_in_a_pass = most_models_in_a_pass
        self._long_work: WorkQueue[Sequence[Outcome]] = WorkQueue(threads, most_waiting, name="inference", clock=clock)

    async def predict(self, query: Query, deadline: Deadline = NEVER, check: Check | None = None) -> Prediction:
        """Return the model's answer.

        Raises:
            DeadlineExceeded: the query came too late to be answered.
            ServingError: there is no answer; the error says why.
        """
        model_id = self._checked(query, check)
        queries = [query]
        # Nearly always the model is in memory, and no wait is needed.
        lease = self._manager.acquire_ready(model_id) or await self._acquired(model_id, queries, deadline)
        work = self._answers_of(lease, queries, deadline)
        span = span_of_call()
        outcome = (await (work if span is None else inference(span, work, queries)))[0]
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    def predict_now(self, queries: Sequence[Query], call: Call, check: Check | None = None) -> list[Outcome | None]:
        """Return the outcome of each query that can be answered without a wait, ``None`` for the others.

        Raises:
            InvalidRequest: the batch is too large.
        """
        self._limits.check_batch(queries)
        outcomes: list[Outcome | None] = [None] * len(queries)
        self._answer_now(queries, self._by_model(queries, outcomes, check), outcomes, call)
        return outcomes

    def predict_checked_now(self, queries: Sequence[Query], call: Call) -> list[Outcome | None]:
        """Return the same as :meth:`predict_now`; the caller, in this process, has checked model ids and bounds."""
        groups: dict[ModelId, list[int]] = defaultdict(list)
        for index, query in enumerate(queries):
            groups[ModelId(query.model_id)].append(index)
        outcomes: list[Outcome | None] = [None] * len(queries)
        self._answer_now(queries, groups, outcomes, call)
        return outcomes

    def _answer_now(
        self,
        queries: Sequence[Query],
        groups: Mapping[ModelId, Sequence[int]],
        outcomes: list[Outcome | None],
        call: Call,
    ) -> None:
        """Set the outcomes of the models that can answer without a wait."""
        span = None if call.span is None else begin_inference(call.span, queries)
        together: list[_Ready] = []
        for model_id, members in groups.items():
            group = queries if len(members) == len(queries) else [queries[index] for index in members]
            lease = self._ready_lease(model_id, group)
            if lease is None:
                continue
            if len(groups) > 1 and len(members) < _PASS_OF_ITS_OWN and lease.model.is_always_finite:
                together.append(_Ready(lease, members, group))
                if len(together) == self._most_models_in_a_pass:
                    self._answer_together(together, outcomes, call.deadline)
                    together = []
            else:
                _put(outcomes, members, self._answers_of_ready(lease, group, call.deadline))
        if together:
            self._answer_together(together, outcomes, call.deadline)
        if span is not None:
            span.end()

    async def predict_ready(
        self, queries: Sequence[Query], deadline: Deadline = NEVER, check: Check | None = None
    ) -> list[Outcome | None]:
        """Return the outcome of each query whose model can answer at once, ``None`` for the others.

        Raises:
            InvalidRequest: the batch is too large.
        """
        work = self._each(queries, self._answers_if_ready, deadline, check)
        span = span_of_call()
        return await (work if span is None else inference(span, work, queries))

    async def predict_batch(
        self, queries: Sequence[Query], deadline: Deadline = NEVER, check: Check | None = None
    ) -> list[Outcome]:
        """Return the outcome of each query, in order. Queries of one model share one pass through it.

        Raises:
            InvalidRequest: the batch is too large.
        """
        work = self._each(queries, self._answers, deadline, check)
        span = span_of_call()
        outcomes = await (work if span is None else inference(span, work, queries))
        return [outcome for outcome in outcomes if outcome is not None]

    async def _each(
        self, queries: Sequence[Query], answers: Answers, deadline: Deadline, check: Check | None
    ) -> list[Outcome | None]:
        self._limits.check_batch(queries)
        outcomes: list[Outcome | None] = [None] * len(queries)
        later: list[tuple[ModelId, list[int]]] = []
        spent = 0
        for model_id, members in self._by_model(queries, outcomes, check).items():
            group = [queries[index] for index in members]
            # Nearly always the model is in memory and the work is short: a task would cost more than the answers.
            at_once = self._answers_at_once(model_id, group, deadline)
            if at_once is None:
                later.append((model_id, members))
                continue
            _put(outcomes, members, at_once)
            spent += len(group)
            if spent >= _INLINE_QUERIES:
                # The event loop continues between the models of a large batch.
                spent = 0
                await asyncio.sleep(0)
        if later:
            found_later = await asyncio.gather(
                *(_outcomes(answers, model_id, [queries[i] for i in members], deadline) for model_id, members in later)
            )
            for (_, members), found in zip(later, found_later, strict=True):
                _put(outcomes, members, found)
        return outcomes

    def _by_model(
        self, queries: Sequence[Query], outcomes: list[Outcome | None], check: Check | None
    ) -> dict[ModelId, list[int]]:
        """Return the indices of the queries by model. The outcome of a query that fails its check is the error."""
        groups: dict[ModelId, list[int]] = defaultdict(list)
        for index, query in enumerate(queries):
            try:
                groups[self._checked(query, check)].append(index)
            except ServingError as error:
                outcomes[index] = error
        return groups

    async def preload(self, model_ids: Iterable[ModelId]) -> None:
        """Load models before the first query; a model that cannot be loaded is logged and left out."""
        await self._manager.preload(model_ids)

    async def load(self, model_id: str, deadline: Deadline = NEVER) -> Lease[IntentModel]:
        """Return a lease on the model, which is loaded first if it is not in memory.

        Raises:
            InvalidModelId: ``model_id`` is not a model id.
            ServingError: the model cannot be loaded; the error says why.
        """
        return await self._acquired(parse_model_id(model_id), (), deadline)

    def unload(self, model_id: str) -> bool:
        """Unload the model, and return whether it was in memory.

        Raises:
            InvalidModelId: ``model_id`` is not a model id.
            ModelPinned: the settings keep the model in memory.
        """
        return self._manager.unload(parse_model_id(model_id))

    def residency(self) -> ResidentModels[IntentModel]:
        """Return the models in memory."""
        return self._manager.residents

    def loads_waiting(self) -> int:
        """Return the number of models that load or wait to be loaded. May be called in any thread."""
        return self._manager.loads_waiting

    def traffic(self) -> TrafficRegistry:
        """Return the counters of the queries and answers of all models."""
        return self._traffic

    async def close(self) -> None:
        """Wait for work in threads, and close the model manager."""
        await close_in_order(self._manager.close, self._long_work.close)

    def _checked(self, query: Query, check: Check | None) -> ModelId:
        model_id = parse_model_id(query.model_id)
        if check is not None:
            check(query, model_id)
        self._limits.check(query)
        return model_id

    async def _acquired(self, model_id: ModelId, queries: Sequence[Query], deadline: Deadline) -> Lease[IntentModel]:
        # Loads have their own queue, which has its own bound.
        with released_slot():
            return await self._manager.acquire(model_id, _last_of(queries, deadline))

    def _answers_at_once(
        self, model_id: ModelId, queries: Sequence[Query], deadline: Deadline
    ) -> Sequence[Outcome] | None:
        """Return the outcomes; ``None`` if they would need a wait or take long."""
        lease = self._ready_lease(model_id, queries)
        return None if lease is None else self._answers_of_ready(lease, queries, deadline)

    def _ready_lease(self, model_id: ModelId, queries: Sequence[Query]) -> Lease[IntentModel] | None:
        """Return a lease on the model; ``None`` if the lease would need a wait, or the answers take long."""
        return self._manager.acquire_ready(model_id) if self._is_short_for(model_id, queries) else None

    def _answers_of_ready(
        self, lease: Lease[IntentModel], queries: Sequence[Query], deadline: Deadline
    ) -> Sequence[Outcome]:
        model_id = lease.resident.model_id
        try:
            return self._in_line(lease, queries, deadline)
        except Exception as error:  # noqa: BLE001 - reported as the outcome; the rest of the batch is unaffected
            return _refused(error, model_id, queries)

    def _answer_together(self, ready: Sequence[_Ready], outcomes: list[Outcome | None], deadline: Deadline) -> None:
        """Set the outcomes of several models."""
        now = monotonic()
        if deadline.at > now and all(query.until > now for _, _, queries in ready for query in queries):
            try:
                found = self._in_one_pass(ready)
            except Exception:
                # Querying each model separately shows which one is at fault.
                log.exception("joint prediction failed", models=len(ready))
            else:
                _put(outcomes, [index for _, members, _ in ready for index in members], found)
                return
        for lease, members, queries in ready:
            _put(outcomes, members, self._answers_of_ready(lease, queries, deadline))

    def _in_one_pass(self, ready: Sequence[_Ready]) -> Sequence[Outcome]:
        group: list[ModelQuery] = []
        for lease, _, queries in ready:
            resident = lease.resident
            counter = self._traffic.counter_of(resident)
            group += [ModelQuery(resident.model, query, counter) for query in queries]
        found = answers_together(group)
        for lease, _, _ in ready:
            lease.release()
        return self._counted(found)

    def _is_short_for(self, model_id: ModelId, queries: Sequence[Query]) -> bool:
        """Return whether the answers are short work for this model; nearly all answers are, for every model."""
        if is_short(queries):
            return True
        resident = self._manager.residents.get(model_id)
        return resident is not None and is_short_for(resident.model, queries)

    async def _answers_if_ready(
        self, model_id: ModelId, queries: Sequence[Query], deadline: Deadline
    ) -> Sequence[Outcome | None]:
        lease = self._manager.acquire_ready(model_id)
        return [None] * len(queries) if lease is None else await self._answers_of(lease, queries, deadline)

    async def _answers(self, model_id: ModelId, queries: Sequence[Query], deadline: Deadline) -> Sequence[Outcome]:
        return await self._answers_of(await self._acquired(model_id, queries, deadline), queries, deadline)

    async def _answers_of(
        self, lease: Lease[IntentModel], queries: Sequence[Query], deadline: Deadline
    ) -> Sequence[Outcome]:
        if is_short_for(lease.model, queries):
            return self._in_line(lease, queries, deadline)
        return self._counted(await self._in_a_thread(lease, queries, deadline))

    def _in_line(self, lease: Lease[IntentModel], queries: Sequence[Query], deadline: Deadline) -> Sequence[Outcome]:
        with lease as model:
            counter = self._traffic.counter_of(lease.resident)
            return self._counted(_in_time(model, queries, deadline, counter, 0.0))

    def _counted(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        for outcome in outcomes:
            if isinstance(outcome, ServingError):
                self._manager.residents.statistics.count_failure(outcome)
        return outcomes

    async def _in_a_thread(
        self, lease: Lease[IntentModel], queries: Sequence[Query], deadline: Deadline
    ) -> Sequence[Outcome]:
        model = lease.model
        work = functools.partial(_in_time, model, queries, deadline, self._traffic.counter_of(lease.resident))
        # A caller may leave while the thread still works: the model is in use until the thread is done.
        with released_slot():
            return await self._long_work.do(
                work, cost=cost_for(model, queries), deadline=_last_of(queries, deadline), release=lease.release
            )


def _last_of(queries: Sequence[Query], deadline: Deadline) -> Deadline:
    """Return the last moment at which a caller waits."""
    return Deadline(min(deadline.at, max((query.until for query in queries), default=deadline.at)))


def _in_time(
    model: IntentModel,
    queries: Sequence[Query],
    deadline: Deadline,
    counter: TrafficCounter | None,
    least_seconds: float,
) -> Sequence[Outcome]:
    """Return the outcomes; ``least_seconds`` is the shortest time that the answers take, 0 if unknown."""
    # Timers of a busy event loop and the queue of a busy pool may be late; skip answers that no caller waits for.
    deadline.check()
    soonest = monotonic() + least_seconds
    for query in queries:
        if query.until <= soonest:
            return _those_in_time(model, queries, soonest, counter)
    return model.predict(queries, counter)


def _those_in_time(
    model: IntentModel, queries: Sequence[Query], soonest: float, counter: TrafficCounter | None
) -> Sequence[Outcome]:
    in_time = [query for query in queries if query.until > soonest]
    answers = iter(model.predict(in_time, counter) if in_time else ())
    late = DeadlineExceeded("the deadline of the call has passed, or is too near for an answer")
    return [next(answers) if query.until > soonest else late for query in queries]


def _put(outcomes: list[Outcome | None], members: Sequence[int], found: Sequence[Outcome | None]) -> None:
    for index, outcome in zip(members, found, strict=True):
        outcomes[index] = outcome


async def _outcomes(
    answers: Answers, model_id: ModelId, queries: Sequence[Query], deadline: Deadline
) -> Sequence[Outcome | None]:
    try:
        return await answers(model_id, queries, deadline)
    except Exception as error:  # noqa: BLE001 - reported as the outcome; the rest of the batch is unaffected
        return _refused(error, model_id, queries)


def _refused(error: Exception, model_id: ModelId, queries: Sequence[Query]) -> Sequence[Outcome]:
    if isinstance(error, ServingError):
        return [error] * len(queries)
    log.error("prediction failed", model=model_id, exc_info=error)
    return [ServingError(INTERNAL_MESSAGE)] * len(queries)
