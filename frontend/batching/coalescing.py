"""Collects single queries and sends them to an engine in batches.

A call costs both sides far more than a query does. So few calls are in flight to an engine at the same time; queries
that arrive in one turn of the event loop, or while these calls are in flight, are sent together. There is no timer: a
query is not delayed if no other query waits. An engine in the same process answers a batch within the turn.

Nor does a query wait for another query's model: the engine answers the queries of a batch that it can answer at
once, and each of the others is sent alone. Deadlines, cancellation and errors remain separate for each query.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeAlias
from weakref import WeakValueDictionary

import structlog
from grpc import StatusCode

from frontend.batching.batch import Batch, WaitingQuery, call_of, failure_of
from frontend.batching.counts import QueryCounts
from frontend.engines.backend import BatchingBackend, GroupOf
from frontend.engines.submission import BatchDone, Done, SubmitBatch, Withdraw, answer_of
from frontend.engines.traced import batch_of, end_batch
from frontend.engines.wrapper import BackendWrapper
from grpc_http2.alarms import alarms_of
from grpc_http2.turn import Turn
from serving.call.call import Call, enter_call
from serving.call.closing import close_in_order
from serving.call.slots import released_slot
from serving.call.tasks import Tasks
from serving.domain.errors import ServingError, copy_for_raise, service_ends
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.query_limits import best_labels, explained_characters, fit_in_one_answer

log = structlog.get_logger()

_MOST_QUERIES: Final = 256
_MOST_CHARACTERS: Final = 1 << 17


PredictNow: TypeAlias = Callable[[Sequence[Query], Call], Sequence[Outcome | None]]
"""Does the same as :meth:`BatchingBackend.predict_ready` without a wait, for an engine in this process."""


class CoalescingBackend(BackendWrapper[BatchingBackend]):
    """A :class:`~frontend.engines.backend.Backend` in front of an engine.

    Args:
        backend: the engine.
        calls: maximum number of batches in flight for each group.
        group_of: returns a key that is the same for queries that may share a batch; without it, all queries may.
        counts: counters of queries, if any.
        predict_now: answers a batch within the turn, if the engine is in this process.
        submit_batch: submits a batch to the engine without a task, if the engine supports this.
    """

    def __init__(
        self,
        backend: BatchingBackend,
        *,
        calls: int,
        group_of: GroupOf | None = None,
        counts: QueryCounts | None = None,
        predict_now: PredictNow | None = None,
        submit_batch: SubmitBatch | None = None,
    ) -> None:
        super().__init__(backend)
        self._calls = calls
        self._submit_batch = submit_batch
        self.counts = counts
        self.predict_now = predict_now
        self._group_of = group_of
        # A group exists as long as a query waits in it, or a batch of it is in flight.
        self._groups: WeakValueDictionary[Hashable, _Group] = WeakValueDictionary()
        self._all = _Group(self, calls) if group_of is None else None
        """The only group, if there is no ``group_of``."""
        self._takes_batches = True
        self._tasks = Tasks()

    def submit(self, query: Query, call: Call, done: Done) -> Withdraw | None:
        """Send the query together with others that arrive meanwhile; ``done`` is called with the outcome."""
        waiting = WaitingQuery(query, call, done)
        if not self._takes_batches:
            if self.counts is not None:
                self.counts.sent_at_once((query,))
            self.send_alone(waiting)
            return waiting.withdraw
        (self._all or self._group(query)).add(waiting)
        return waiting.withdraw

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the model's answer to one query. Raises the engine's error."""
        call.deadline.check()
        return await answer_of(self, query, call)

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        """Return the outcome of each query, in order. Raises the engine's error if the engine refused the batch."""
        if self.counts is not None:
            self.counts.sent_at_once(queries)
        return await self._backend.predict_batch(queries, call)

    async def close(self) -> None:
        """Cancel queries in flight, and close the engine's backend."""
        for group in (self._all, *self._groups.values()):
            if group is not None:
                group.close()
        await close_in_order(self._tasks.close, super().close)

    def _group(self, query: Query) -> _Group:
        key = None if self._group_of is None else self._group_of(query)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(self, self._calls)
        return group

    def settle(self, waiting: WaitingQuery, outcome: Outcome | None) -> None:
        """Handle the outcome that a batch returned for a query."""
        if outcome is None:
            # The model must be loaded first, and the engine has a separate queue for loads.
            self.send_alone(waiting)
        elif isinstance(outcome, ServingError) and outcome.code is StatusCode.UNIMPLEMENTED:
            if self._takes_batches:
                # A predictor of the book's system accepts one query at a time.
                log.info("the engine does not accept batches; sending queries one by one")
                self._takes_batches = False
            self.send_alone(waiting)
        else:
            waiting.settle(outcome)

    def send_alone(self, waiting: WaitingQuery) -> None:
        """Send one query to the engine."""
        if not waiting.settled:
            waiting.batch = None
            waiting.task = self._tasks.start(self._alone(waiting))

    def submit_batch(self, queries: Sequence[Query], call: Call, done: BatchDone) -> Withdraw:
        """Have the engine answer those queries of a batch that it can answer at once."""
        withdraw = None if self._submit_batch is None else self._submit_batch(queries, call, done)
        return withdraw or self._tasks.start(self._answered(queries, call, done)).cancel

    async def _answered(self, queries: Sequence[Query], call: Call, done: BatchDone) -> None:
        enter_call(call)
        outcomes: Sequence[Outcome | None] | Exception
        try:
            outcomes = await self._backend.predict_ready(queries, call)
        except Exception as error:  # noqa: BLE001 - any error is the outcome
            outcomes = error
        done(outcomes)

    async def _alone(self, waiting: WaitingQuery) -> None:
        enter_call(waiting.call)
        outcome: Prediction | Exception
        try:
            with released_slot():
                outcome = await self._backend.predict(waiting.query, waiting.call)
        except asyncio.CancelledError:
            waiting.settle(service_ends())
            raise
        except Exception as error:  # noqa: BLE001 - any error is the outcome
            outcome = error
        waiting.task = None
        waiting.settle(outcome)


class _Group:
    """Queries that may share a batch."""

    def __init__(self, owner: CoalescingBackend, calls: int) -> None:
        self.submit = owner.submit_batch
        self.settle = owner.settle
        self.alarms = alarms_of(asyncio.get_running_loop())
        self._counts = owner.counts
        self._predict_now = owner.predict_now
        self._free = calls
        self._closed = False
        self._is_due = False
        self._is_sending = False
        self._waiting: deque[WaitingQuery] = deque()
        self._batches: set[Batch] = set()
        self._turn = Turn.of_running_loop()

    def add(self, waiting: WaitingQuery) -> None:
        """Send the query with the next batch, once all calls of this turn have been seen."""
        if self._closed:
            waiting.settle(service_ends())
            return
        if self._counts is not None:
            waiting.arrival = self._counts.came(waiting.query)
        span = waiting.call.span
        if span is not None:
            waiting.span = span.child("queue")
        self._waiting.append(waiting)
        if self._free and not self._is_due:
            self._is_due = True
            self._turn.at_end(self._send)

    def give_slot_back(self) -> None:
        """Free a slot and send the next batch at once: the engine should not idle while answers are reported."""
        self._free += 1
        if not self._is_sending:
            self._send()

    def forget(self, batch: Batch) -> None:
        """Drop a batch that has ended."""
        self._batches.discard(batch)

    def close(self) -> None:
        """Cancel batches in flight, and refuse waiting queries."""
        self._closed = True
        for waiting in self._waiting:
            if waiting.call.deadline.remaining() > 0.0:
                waiting.settle(service_ends())
        for batch in list(self._batches):
            batch.cancel()

    def _send(self) -> None:
        self._is_due = False
        self._is_sending = True
        try:
            self._send_all()
        finally:
            self._is_sending = False

    def _send_all(self) -> None:
        while not self._closed and self._free and self._waiting:
            waited = len(self._waiting)
            members = self._next_members()
            if self._counts is not None:
                self._counts.went(waited - len(self._waiting))
            if members:
                if self._counts is not None:
                    self._counts.sent(members)
                if self._predict_now is not None:
                    self._answer(members, self._predict_now)
                else:
                    self._free -= 1
                    batch = Batch(self, members)
                    self._batches.add(batch)
                    batch.begin()

    def _answer(self, members: Sequence[WaitingQuery], predict_now: PredictNow) -> None:
        """Answer the members within the turn: none of them can time out meanwhile."""
        span = batch_of(members)
        call = call_of(members, span)
        outcomes: Sequence[Outcome | None]
        fault = ""
        try:
            outcomes = predict_now([member.query for member in members], call)
        except Exception as error:  # noqa: BLE001 - any error is the outcome of each member
            failure = failure_of(error)
            fault, outcomes = failure.code.name, [copy_for_raise(failure) for _ in members]
        if span is not None:
            end_batch(span, members, fault)
        for member, outcome in zip(members, outcomes, strict=True):
            if isinstance(outcome, Prediction):
                member.settle(outcome)
            else:
                self.settle(member, outcome)

    def _next_members(self) -> list[WaitingQuery]:
        members: list[WaitingQuery] = []
        characters = labels = explained = 0
        while self._waiting and len(members) < _MOST_QUERIES:
            waiting = self._waiting[0]
            # Skip callers that left or timed out.
            if not waiting.settled:
                query = waiting.query
                characters += len(query.document)
                if query.k or query.explain is not None:
                    labels += best_labels(query)
                    explained += explained_characters(query)
                # Queries that are within the limits alone may exceed them together; all of them would be refused.
                if members and not (characters <= _MOST_CHARACTERS and fit_in_one_answer(labels, explained)):
                    break
                members.append(waiting)
            self._waiting.popleft()
        return members
