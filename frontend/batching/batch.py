"""Queries that wait for their outcome, and batches of them that are in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from frontend.engines.submission import BatchDone, Done, Withdraw
from frontend.engines.traced import LEFT, batch_of, end_batch
from grpc_http2.alarms import Alarm, Alarms
from serving.call.call import Call
from serving.call.deadline import Deadline
from serving.call.spans import Span
from serving.domain.errors import INTERNAL_MESSAGE, ServingError, copy_for_raise, service_ends
from serving.domain.prediction import Outcome, Prediction, Query

log = structlog.get_logger()

# A batch of ready models takes a few milliseconds. A batch that hangs must not delay later queries.
_SLOT_SECONDS: Final = 0.1


class WaitingQuery:
    """A query from its arrival to its outcome."""

    settled = False
    """Whether the outcome was reported, or no caller waits for it."""
    arrival = 0.0
    """Time of the arrival, in seconds on the clock of :meth:`QueryCounts.came`, if arrivals are counted."""
    batch: Batch | None = None
    """Batch with which the query is in flight."""
    span: Span | None = None
    """If the call is traced: the span of the wait in the queue, then of the flight."""
    task: asyncio.Task[None] | None = None
    """Task that sends the query alone."""

    def __init__(self, query: Query, call: Call, done: Done) -> None:
        self.query = query
        self.call = call
        self._done = done

    def settle(self, outcome: Prediction | Exception) -> None:
        """Report the outcome."""
        if not self.settled:
            self.settled = True
            self._done(outcome)

    def withdraw(self) -> None:
        """Withdraw the query."""
        if self.settled:
            return
        self.settled = True
        if self.batch is not None:
            self.batch.leave()
        if self.task is not None:
            self.task.cancel()
        if self.span is not None:
            self.span.end(LEFT)


class Group(Protocol):
    """Group of queries that share batches, as a batch sees it."""

    alarms: Alarms

    def submit(self, queries: Sequence[Query], call: Call, done: BatchDone) -> Withdraw:
        """Have the engine answer those queries of a batch that it can answer at once."""

    def settle(self, waiting: WaitingQuery, outcome: Outcome | None) -> None:
        """Handle the outcome that a batch returned for a query."""

    def forget(self, batch: Batch) -> None:
        """Drop a batch that has ended."""

    def give_slot_back(self) -> None:
        """Free the slot of a batch."""


class Batch:
    """Queries in flight together."""

    def __init__(self, group: Group, members: Sequence[WaitingQuery]) -> None:
        self._group = group
        self._members: Sequence[WaitingQuery] = members
        self._left = len(members)
        self._slot: Alarm | None = group.alarms.after(_SLOT_SECONDS, self._give_slot_back)
        self._span = batch_of(members)
        self._withdraw: Withdraw | None = None
        for member in members:
            member.batch = self

    def begin(self) -> None:
        """Send the batch."""
        members = self._members
        try:
            withdraw = self._group.submit(_queries_of(members), call_of(members, self._span), self._done)
        except Exception as error:  # noqa: BLE001 - any error is the outcome of each member
            self._done(error)
        else:
            # The batch may have ended already; then there is nothing to withdraw.
            self._withdraw = withdraw if self._members else None

    def leave(self) -> None:
        """Count a member that left; after the last one no caller needs the answer, and the batch is cancelled."""
        self._left -= 1
        if not self._left:
            self.cancel()

    def cancel(self) -> None:
        """End the batch without answers."""
        members, withdraw = self._members, self._withdraw
        if members:
            self._end(LEFT)
            if withdraw is not None:
                withdraw()
            self._settle(members, [service_ends() for _ in members])

    def _done(self, outcomes: Sequence[Outcome | None] | Exception) -> None:
        members = self._members
        if not members:
            return
        if not isinstance(outcomes, Exception) and len(outcomes) != len(members):
            outcomes = ValueError(f"{len(outcomes)} outcomes for {len(members)} queries")
        if isinstance(outcomes, Exception):
            failure = failure_of(outcomes)
            self._end(failure.code.name)
            outcomes = [copy_for_raise(failure) for _ in members]
        else:
            self._end("")
        self._settle(members, outcomes)

    def _end(self, fault: str) -> None:
        """End the batch's span, before the spans of the calls that contain it are ended, and send the next batch.

        ``fault`` names the reason that no member is answered; it is empty if the members are answered.
        """
        if self._span is not None:
            end_batch(self._span, self._members, fault)
        # The members refer to the batch too: the cycle would stay in memory until the garbage collector runs.
        self._members = ()
        self._withdraw = None
        self._group.forget(self)
        self._give_slot_back()

    def _give_slot_back(self) -> None:
        if self._slot is not None:
            self._slot.cancel()
            self._slot = None
            self._group.give_slot_back()

    def _settle(self, members: Sequence[WaitingQuery], outcomes: Sequence[Outcome | None]) -> None:
        for member, outcome in zip(members, outcomes, strict=True):
            member.batch = None
            self._group.settle(member, outcome)


def call_of(members: Sequence[WaitingQuery], span: Span | None) -> Call:
    """Return the call for a batch: that of a single member, otherwise one with the latest deadline."""
    if len(members) == 1 and span is None:
        return members[0].call
    # Members with an earlier deadline leave earlier.
    last = max(member.call.deadline.at for member in members)
    call = members[0].call if len(members) == 1 else Call.until(Deadline(last))
    return call if span is None else call.with_span(span)


def _queries_of(members: Sequence[WaitingQuery]) -> Sequence[Query]:
    """Return the queries of the members, each with its own deadline: the engine skips a member that is too late."""
    if len(members) == 1:
        return [members[0].query]
    return [member.query.with_deadline(member.call.deadline.at) for member in members]


def failure_of(error: Exception) -> ServingError:
    """Return the error of a batch without answers; an internal fault is logged, and not disclosed to callers."""
    if isinstance(error, ServingError):
        return error
    log.error("batch failed", exc_info=error)
    return ServingError(INTERNAL_MESSAGE)
