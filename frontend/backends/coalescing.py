"""Sends to an engine in batches what comes one by one.

A call costs both sides far more than a query does. So few calls are in flight to an engine at the same time; what
arrives together, or meanwhile, goes together. There is no timer: where nobody waits, nobody is made to wait.

Nobody waits for anybody else's model either: a batch is answered with what can be answered at once, and what cannot is
asked for alone. Deadlines, cancellation and errors stay each query's own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from weakref import WeakValueDictionary

import structlog
from grpc import StatusCode

from frontend.backends.backend import Backend
from frontend.backends.before import BackendBefore
from frontend.backends.counts import QueryCounts
from frontend.backends.traced import LEFT, batch_of, end_batch
from serving.call import Call, enter_call
from serving.errors import INTERNAL_MESSAGE, ServingError, Unavailable, again
from serving.place import aside
from serving.prediction import Outcome, Prediction, Query
from serving.query_limits import best_labels, explained_characters, fit_in_one_answer
from serving.spans import Span

log = structlog.get_logger()

_MOST_QUERIES: Final = 256
_MOST_CHARACTERS: Final = 1 << 17
# A batch of ready models takes a few milliseconds. One that hangs must not hold up those who come after it.
_SLOT_SECONDS: Final = 0.1


class BatchingBackend(Backend, Protocol):
    """An engine that answers batches at once, as far as it can."""

    async def predict_ready(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome | None]:
        """Return the outcome of each query that can be answered at once, ``None`` for those to be asked alone.

        Raises:
            ServingError: why there is none for any.
        """


@dataclass(slots=True, eq=False)
class _Waiting:
    query: Query
    call: Call
    outcome: asyncio.Future[Outcome | None]
    arrival: float = 0.0
    """When it came, where that is counted."""
    batch: _Batch | None = None
    """The one it is in flight with."""
    span: Span | None = None
    """Where its call is traced: its wait in the queue, then its flight."""


class CoalescingBackend(BackendBefore[BatchingBackend]):
    """A :class:`~frontend.backends.backend.Backend` before another.

    Args:
        backend: the engine.
        calls: how many batches may be in flight for each group.
        group_of: what is the same for queries that may go in one batch; without it all may.
        counts: what is counted of queries, if anything.
    """

    def __init__(
        self,
        backend: BatchingBackend,
        *,
        calls: int,
        group_of: Callable[[Query], Hashable] = lambda _: None,
        counts: QueryCounts | None = None,
    ) -> None:
        super().__init__(backend)
        self._calls = calls
        self._counts = counts
        self._group_of = group_of
        # One is there as long as somebody waits in it, or a batch of it is in flight.
        self._groups: WeakValueDictionary[Hashable, _Group] = WeakValueDictionary()
        self._batches = True

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the model's answer to one query. Raises the engine's error."""
        call.deadline.check()
        if not self._batches:
            if self._counts is not None:
                self._counts.asked((query,))
            return await self._backend.predict(query, call)
        try:
            outcome = await self._ask(query, call)
        except ServingError as error:
            if error.code is not StatusCode.UNIMPLEMENTED:
                raise
            # A predictor of the book's system takes one query at a time.
            log.info("the engine takes no batches; queries are sent one by one")
            self._batches = False
            outcome = None
        if outcome is None:
            # Its model is to be loaded, for which the engine has a queue of its own.
            with aside():
                return await self._backend.predict(query, call)
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        """Return the outcome of each query, in order. Raises the engine's error where it refused the batch."""
        if self._counts is not None:
            self._counts.asked(queries)
        return await self._backend.predict_batch(queries, call)

    async def close(self) -> None:
        """End what is in flight, and close the engine's backend."""
        for group in list(self._groups.values()):
            group.close()
        await super().close()

    async def _ask(self, query: Query, call: Call) -> Outcome | None:
        key = self._group_of(query)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(self._backend, self._calls, self._counts)
        return await group.ask(query, call)


class _Group:
    """Queries that may go together."""

    def __init__(self, backend: BatchingBackend, calls: int, counts: QueryCounts | None) -> None:
        self._backend = backend
        self._counts = counts
        self._free = calls
        self._closed = False
        self._sending = False
        self._waiting: deque[_Waiting] = deque()
        self._batches: set[_Batch] = set()
        self._loop = asyncio.get_running_loop()

    async def ask(self, query: Query, call: Call) -> Outcome | None:
        """Return the outcome; ``None`` where the query is to be asked alone."""
        waiting = _Waiting(query, call, self._loop.create_future())
        if self._counts is not None:
            waiting.arrival = self._counts.came(query)
        if call.span is not None:
            waiting.span = call.span.child("queue")
        self._waiting.append(waiting)
        self._send_soon()
        try:
            return await waiting.outcome
        except asyncio.CancelledError:
            if waiting.batch is not None:
                waiting.batch.leave()
            if waiting.span is not None:
                waiting.span.end(LEFT)
            raise

    def give_slot_back(self) -> None:
        """Let the next batch go, at once: its engine should not wait while the answers of this one are given."""
        self._free += 1
        self._send()

    def forget(self, batch: _Batch) -> None:
        """Let go of a batch that has ended."""
        self._batches.discard(batch)

    def close(self) -> None:
        """End what is in flight, and refuse what waits."""
        self._closed = True
        for waiting in self._waiting:
            if not waiting.outcome.done() and waiting.call.deadline.remaining() > 0.0:
                waiting.outcome.set_exception(_ending())
        for batch in self._batches:
            batch.cancel()

    def _send_soon(self) -> None:
        """Send once everything has been heard that has arrived by now."""
        if self._free and self._waiting and not self._sending:
            self._sending = True
            self._loop.call_soon(self._send_what_arrived, 0)

    def _send_what_arrived(self, heard: int) -> None:
        # Who arrives in bursts is answered in bursts, which spares both sides most of their wake-ups: as long as a turn
        # of the loop has brought somebody, there may be more to hear.
        if heard < len(self._waiting) < _MOST_QUERIES:
            self._loop.call_soon(self._send_what_arrived, len(self._waiting))
            return
        self._sending = False
        self._send()

    def _send(self) -> None:
        while not self._closed and self._free and self._waiting:
            waited = len(self._waiting)
            members = self._next_members()
            if self._counts is not None:
                self._counts.went(waited - len(self._waiting))
            if members:
                if self._counts is not None:
                    self._counts.sent(members)
                self._free -= 1
                self._batches.add(_Batch(self, self._backend, members))

    def _next_members(self) -> list[_Waiting]:
        members: list[_Waiting] = []
        characters = labels = explained = 0
        while self._waiting and len(members) < _MOST_QUERIES:
            waiting = self._waiting[0]
            # Who has left, or come to the deadline, is not sent.
            if not waiting.outcome.done():
                query = waiting.query
                characters += len(query.document)
                labels += best_labels(query)
                explained += explained_characters(query)
                # What each may ask for alone may be too much together, and would be refused to all.
                if members and not (characters <= _MOST_CHARACTERS and fit_in_one_answer(labels, explained)):
                    break
                members.append(waiting)
            self._waiting.popleft()
        return members


def _queries_of(members: Sequence[_Waiting]) -> Sequence[Query]:
    """Return what the members ask, each with its own deadline: who waits no more is not to be answered."""
    if len(members) == 1:
        return [members[0].query]
    return [tuple.__new__(Query, (*member.query[:-1], member.call.deadline.at)) for member in members]


def _ending() -> ServingError:
    return Unavailable("the service is ending; try again")


class _Batch:
    """Queries in flight together."""

    def __init__(self, group: _Group, backend: BatchingBackend, members: Sequence[_Waiting]) -> None:
        self._group = group
        self._backend = backend
        self._members: Sequence[_Waiting] = members
        self._left = len(members)
        loop = asyncio.get_running_loop()
        self._slot: asyncio.TimerHandle | None = loop.call_later(_SLOT_SECONDS, self._give_slot_back)
        self._task = loop.create_task(self._run())
        for member in members:
            member.batch = self

    def leave(self) -> None:
        """Count a member that has left; when the last of them has, nobody needs the answer."""
        self._left -= 1
        if not self._left:
            self._task.cancel()

    def cancel(self) -> None:
        """End the call."""
        self._task.cancel()

    async def _run(self) -> None:
        members = self._members
        # The last of their deadlines: who has an earlier one leaves earlier.
        call = max((member.call for member in members), key=lambda call: call.deadline.at)
        if len(members) > 1:
            call = Call.until(call.deadline)
        span = batch_of(members)
        if span is not None:
            call = call._replace(span=span)
        # The task has begun in the name of whoever came first.
        enter_call(call)
        fault = LEFT
        try:
            outcomes = await self._backend.predict_ready(_queries_of(members), call)
            fault = ""
        except ServingError as error:
            fault = error.code.name
            self._fail(error)
        except asyncio.CancelledError:
            self._fail(_ending())
            raise
        except Exception:
            log.exception("batch failed")
            fault = StatusCode.INTERNAL.name
            self._fail(ServingError(INTERNAL_MESSAGE))
        else:
            self._give_slot_back()
            for member, outcome in zip(members, outcomes, strict=True):
                if not member.outcome.done():
                    member.outcome.set_result(outcome)
        finally:
            self._give_slot_back()
            if span is not None:
                end_batch(span, members, fault)
            self._group.forget(self)
            # They know this batch too: in a circle, all of it would stay until the garbage collector comes.
            self._members = ()

    def _fail(self, error: ServingError) -> None:
        for member in self._members:
            if not member.outcome.done():
                member.outcome.set_exception(again(error))

    def _give_slot_back(self) -> None:
        if self._slot is not None:
            self._slot.cancel()
            self._slot = None
            self._group.give_slot_back()
