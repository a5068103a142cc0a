"""Answers queries: a lease on the model, then its answer. Knows no protobuf and no transport."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

import structlog

from predictor.intent_model import IntentModel
from predictor.model_manager import ModelManager
from predictor.residency import Lease, ResidentModels
from predictor.tokenizer import Tokenizer
from predictor.traffic import TrafficCounter
from predictor.traffic_registry import TrafficRegistry
from serving.deadline import NEVER, Deadline
from serving.errors import INTERNAL_MESSAGE, ServingError
from serving.model_id import ModelId, parse_model_id
from serving.prediction import Outcome, Prediction, Query
from serving.query_limits import QueryLimits

log = structlog.get_logger()

Answers: TypeAlias = Callable[[ModelId, Sequence[Query], Deadline], Awaitable[Sequence[Outcome | None]]]

# Work that takes longer leaves the event loop: in tokens, each of which may cost as much as a character of plain words.
_INLINE_TOKENS: Final = 8192
_INLINE_QUERIES: Final = 64
# For models that are not known yet: of the tokenizer that gives the most, and more labels than models have.
_MOST_TOKENS_PER_CHARACTER: Final = Tokenizer.parse("basic_english+words:5+characters:2-8").tokens_per_character
_MOST_LABELS: Final = 1 << 10
# What a query costs beside its text, and each label it asks for, in the same measure.
_COST_OF_QUERY: Final = 64
_COST_OF_LABEL: Final = 4


class InferenceEngine:
    """The predictor's data plane.

    Args:
        manager: gives out leases on models.
        limits: what is taken in a query and a batch.
        traffic: counts what the models answer.
        threads: pool size for documents and batches too long for the event loop.
    """

    def __init__(
        self, manager: ModelManager[IntentModel], limits: QueryLimits, traffic: TrafficRegistry, *, threads: int
    ) -> None:
        self._manager = manager
        self._limits = limits
        self._traffic = traffic
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference")

    async def predict(self, query: Query, deadline: Deadline = NEVER) -> Prediction:
        """Return the model's answer.

        Raises:
            DeadlineExceeded: it came too late to be computed.
            ServingError: why there is none.
        """
        model_id = self._checked(query)
        queries = [query]
        # Nearly always the model is there, and nothing needs to be waited for.
        lease = self._manager.acquire_ready(model_id) or await self._manager.acquire(model_id)
        outcome = (await self._answers_of(lease, queries, deadline))[0]
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    async def predict_ready(self, queries: Sequence[Query], deadline: Deadline = NEVER) -> list[Outcome | None]:
        """Return the outcome of each query whose model can answer at once, ``None`` for the others.

        Raises:
            InvalidRequest: the batch is too large.
        """
        return await self._each(queries, self._answers_if_ready, deadline)

    async def predict_batch(self, queries: Sequence[Query], deadline: Deadline = NEVER) -> list[Outcome]:
        """Return the outcome of each query, in order. Queries of one model go through it together.

        Raises:
            InvalidRequest: the batch is too large.
        """
        outcomes = await self._each(queries, self._answers, deadline)
        return [outcome for outcome in outcomes if outcome is not None]

    async def _each(self, queries: Sequence[Query], answers: Answers, deadline: Deadline) -> list[Outcome | None]:
        self._limits.check_batch(queries)
        outcomes: list[Outcome | None] = [None] * len(queries)
        later: list[tuple[ModelId, list[int]]] = []
        spent = 0
        for model_id, members in self._by_model(queries, outcomes).items():
            asked = [queries[index] for index in members]
            # Nearly always the model is there and the work is short: a task for each would cost more than its answers.
            at_once = self._answers_at_once(model_id, asked, deadline)
            if at_once is None:
                later.append((model_id, members))
                continue
            _put(outcomes, members, at_once)
            spent += len(asked)
            if spent >= _INLINE_QUERIES:
                # The event loop goes on between the models of a large batch.
                spent = 0
                await asyncio.sleep(0)
        if later:
            found_later = await asyncio.gather(
                *(_outcomes(answers, model_id, [queries[i] for i in members], deadline) for model_id, members in later)
            )
            for (_, members), found in zip(later, found_later, strict=True):
                _put(outcomes, members, found)
        return outcomes

    def _by_model(self, queries: Sequence[Query], outcomes: list[Outcome | None]) -> dict[ModelId, list[int]]:
        """Return which of the queries each model is asked. Those that ask none get their error as outcome."""
        groups: dict[ModelId, list[int]] = defaultdict(list)
        for index, query in enumerate(queries):
            try:
                groups[self._checked(query)].append(index)
            except ServingError as error:
                outcomes[index] = error
        return groups

    async def preload(self, model_ids: Iterable[ModelId]) -> None:
        """Load models before they are asked for; those that cannot be loaded are reported and left out."""
        await self._manager.preload(model_ids)

    async def load(self, model_id: str) -> Lease[IntentModel]:
        """Return a lease on the model, which is in memory then.

        Raises:
            InvalidModelId: ``model_id`` is none.
            ServingError: why it cannot be loaded.
        """
        return await self._manager.acquire(parse_model_id(model_id))

    def unload(self, model_id: str) -> bool:
        """Let go of what the model holds in memory; return whether it was there.

        Raises:
            InvalidModelId: ``model_id`` is none.
            ModelPinned: it is kept in memory by the settings.
        """
        return self._manager.unload(parse_model_id(model_id))

    def residency(self) -> ResidentModels[IntentModel]:
        """Return the models in memory."""
        return self._manager.residents

    def traffic(self) -> TrafficRegistry:
        """Return what the models were asked and what they answered."""
        return self._traffic

    async def close(self) -> None:
        """Wait for work in threads, and close the model manager."""
        await self._manager.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _checked(self, query: Query) -> ModelId:
        model_id = parse_model_id(query.model_id)
        self._limits.check(query)
        return model_id

    def _answers_at_once(
        self, model_id: ModelId, queries: Sequence[Query], deadline: Deadline
    ) -> Sequence[Outcome] | None:
        """Return the outcomes; ``None`` where they would have to be waited for, or take long."""
        lease = self._manager.acquire_ready(model_id) if self._is_short_for(model_id, queries) else None
        if lease is None:
            return None
        try:
            return self._in_line(lease, queries, deadline)
        except Exception as error:  # noqa: BLE001 - told, and no harm to the neighbours in the batch
            return _refused(error, model_id, queries)

    def _is_short_for(self, model_id: ModelId, queries: Sequence[Query]) -> bool:
        """Return whether the answers are short work for this model, as nearly all are for every model."""
        if _is_short(queries):
            return True
        resident = self._manager.residents.get(model_id)
        return resident is not None and _is_short_for(resident.model, queries)

    async def _answers_if_ready(
        self, model_id: ModelId, queries: Sequence[Query], deadline: Deadline
    ) -> Sequence[Outcome | None]:
        lease = self._manager.acquire_ready(model_id)
        return [None] * len(queries) if lease is None else await self._answers_of(lease, queries, deadline)

    async def _answers(self, model_id: ModelId, queries: Sequence[Query], deadline: Deadline) -> Sequence[Outcome]:
        return await self._answers_of(await self._manager.acquire(model_id), queries, deadline)

    async def _answers_of(
        self, lease: Lease[IntentModel], queries: Sequence[Query], deadline: Deadline
    ) -> Sequence[Outcome]:
        if _is_short_for(lease.model, queries):
            return self._in_line(lease, queries, deadline)
        return self._counted(await self._in_a_thread(lease, queries, deadline))

    def _in_line(self, lease: Lease[IntentModel], queries: Sequence[Query], deadline: Deadline) -> Sequence[Outcome]:
        with lease as model:
            counter = self._traffic.counter_of(lease.resident)
            return self._counted(_in_time(model, queries, deadline, counter))

    def _counted(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        for outcome in outcomes:
            if isinstance(outcome, ServingError):
                self._manager.residents.statistics.count_failure(outcome)
        return outcomes

    async def _in_a_thread(
        self, lease: Lease[IntentModel], queries: Sequence[Query], deadline: Deadline
    ) -> Sequence[Outcome]:
        counter = self._traffic.counter_of(lease.resident)
        work = self._pool.submit(_in_time, lease.model, queries, deadline, counter)
        loop = asyncio.get_running_loop()
        # A caller may leave while the thread is still at it: the model is in use until the thread is done.
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(lease.release))
        return await asyncio.wrap_future(work)


def _in_time(
    model: IntentModel, queries: Sequence[Query], deadline: Deadline, counter: TrafficCounter | None
) -> Sequence[Outcome]:
    # Timers of a busy event loop, and the queue of a busy pool, may be late; what nobody waits for is not computed.
    deadline.check()
    return model.predict(queries, counter)


def _put(outcomes: list[Outcome | None], members: Sequence[int], found: Sequence[Outcome | None]) -> None:
    for index, outcome in zip(members, found, strict=True):
        outcomes[index] = outcome


async def _outcomes(
    answers: Answers, model_id: ModelId, queries: Sequence[Query], deadline: Deadline
) -> Sequence[Outcome | None]:
    try:
        return await answers(model_id, queries, deadline)
    except Exception as error:  # noqa: BLE001 - as above
        return _refused(error, model_id, queries)


def _refused(error: Exception, model_id: ModelId, queries: Sequence[Query]) -> Sequence[Outcome]:
    if isinstance(error, ServingError):
        return [error] * len(queries)
    log.error("answering failed", model=model_id, exc_info=error)
    return [ServingError(INTERNAL_MESSAGE)] * len(queries)


def _is_short_for(model: IntentModel, queries: Sequence[Query]) -> bool:
    return _is_short(queries, model.tokenizer.tokens_per_character, len(model.labels))


def _is_short(
    queries: Sequence[Query], tokens_per_character: int = _MOST_TOKENS_PER_CHARACTER, labels: int = _MOST_LABELS
) -> bool:
    """Return whether the answers take less time than handing the work to a thread and back.

    Args:
        queries: of one model.
        tokens_per_character: the most that the model's tokenizer gives; of any, where the model is not known.
        labels: how many labels the model has, where that is known.
    """
    cost = _COST_OF_QUERY * len(queries)
    for query in queries:
        tokens = len(query.document) * tokens_per_character
        cost += tokens
        if query.k:
            cost += _COST_OF_LABEL * min(query.k, labels)
        if query.explain is not None:
            # Each token has a part in the logit of each label that is explained: the best one, and those asked for.
            cost += tokens * (1 + len(query.explain))
    return cost <= _INLINE_TOKENS
