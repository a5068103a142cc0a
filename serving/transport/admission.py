"""Admission of calls: which are served now, which wait, and which are refused.

The calls of each method pass a gate with an adaptive limit (:mod:`serving.transport.concurrency`). Calls beyond the
limit wait, first come, first served. A call whose deadline would pass before its answer is refused at once, so that its
caller still has time to ask elsewhere. One hard bound applies to the calls of all methods.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from time import monotonic
from typing import Final

from grpc_http2.alarms import alarms_of
from serving.call.call import Call
from serving.call.overload import no_room, no_time
from serving.domain.errors import Overloaded, QuotaExceeded, ServingError, deadline_passed
from serving.transport.concurrency import ConcurrencyLimit, Goal

MOST_WAITING: Final = 16_384
_GOAL: Final = Goal()
# Estimates err both ways, and a waiting call must not be refused late: require 1.5 times the headroom.
_CAUTION: Final = 1.5
# A waiting call is dropped only when half of the estimate exceeds its remaining time. Its status is then
# DEADLINE_EXCEEDED: a refusal, after which a caller may retry elsewhere, is sent at once or not at all.
_HOPELESS: Final = 0.5


class Refusals:
    """Counts of refused calls by reason. The numbers only grow."""

    __slots__ = ("deadline", "overload", "quota")

    def __init__(self) -> None:
        self.overload = 0
        """Calls refused because the service was full, or could not have answered in time."""
        self.deadline = 0
        """Calls whose deadline passed on their way here, or while they waited for admission."""
        self.quota = 0
        """Calls beyond the quota of their tenant."""

    def count(self, error: ServingError) -> None:
        """Count a call that ended with ``error`` if the error is a refusal other than for the deadline."""
        if isinstance(error, Overloaded):
            self.overload += 1
        elif isinstance(error, QuotaExceeded):
            self.quota += 1


class Admission:
    """Admits calls. Belongs to one event loop.

    Args:
        most: maximum number of admitted and waiting calls; further calls are refused.
        most_waiting: maximum number of waiting calls.
        goal: the latency that the limits of the gates adapt to.
    """

    def __init__(self, most: int, *, most_waiting: int = MOST_WAITING, goal: Goal = _GOAL) -> None:
        self.most = most
        self.most_waiting = most_waiting
        self.goal = goal
        self.refusals = Refusals()
        self.in_flight = 0
        """Number of admitted and waiting calls; the gates count them."""
        self.waiting = 0
        """Number of waiting calls."""
        self.gates: dict[str, Gate] = {}
        """Gates by method."""
        self.idle: asyncio.Event | None = None
        """Event that is set when no call is in flight; ``None`` until something waits for it."""

    def gate(self, method: str) -> Gate:
        """Return the gate of the calls of ``method``."""
        gate = self.gates.get(method)
        if gate is None:
            gate = self.gates[method] = Gate(self)
        return gate

    async def wait_until_idle(self) -> None:
        """Return once no call is in flight."""
        while self.in_flight:
            self.idle = self.idle or asyncio.Event()
            self.idle.clear()
            await self.idle.wait()


class Gate:
    """Admits the calls of one method."""

    __slots__ = ("_admission", "_in_work", "_waiting", "limit")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._in_work = 0
        self._waiting: OrderedDict[_Waiting, None] = OrderedDict()
        self.limit = ConcurrencyLimit(admission.most, admission.goal)

    def enter(self, call: Call) -> float:
        """Admit ``call`` and return the time; return 0 if the call has to :meth:`wait`.

        An admitted call has to :meth:`leave`.

        Raises:
            Overloaded: too many calls are in flight.
            DeadlineExceeded: the deadline of the call has passed.
        """
        now = monotonic()
        admission = self._admission
        if call.deadline.at <= now:
            admission.refusals.deadline += 1
            raise deadline_passed()
        if admission.in_flight >= admission.most:
            raise no_room("the service has reached its limit of calls in flight")
        if self._in_work >= self.limit.value:
            return 0.0
        self._in_work += 1
        admission.in_flight += 1
        call.notes.slot = self
        return now

    async def wait(self, call: Call) -> float:
        """Admit ``call`` when a slot is free, and return the time. The call then has to :meth:`leave`.

        Raises:
            Overloaded: the call cannot be answered in time.
            DeadlineExceeded: the deadline passed while the call waited.
        """
        now = monotonic()
        until = call.deadline.at
        admission = self._admission
        if not self._waiting:
            self.limit.first_waits(now)
            if self._in_work < self.limit.value:
                return self.enter(call)
        self._check_in_time(until - now)
        waiting = _Waiting(until)
        self._waiting[waiting] = None
        admission.in_flight += 1
        admission.waiting += 1
        alarm = alarms_of(asyncio.get_running_loop()).after(until - now, self._expire, waiting)
        entered = 0.0
        try:
            entered = await waiting.turn
        finally:
            alarm.cancel()
            if not entered:
                self._give_up(waiting)
        call.notes.slot = self
        return entered

    def leave(self, call: Call, entered: float, answered: bool) -> None:
        """Free the slot of a call.

        Args:
            call: the call that ends.
            entered: the time of its admission; 0 if it was not admitted.
            answered: whether the call was answered.
        """
        if not entered:
            return
        now = monotonic()
        limit = self.limit
        # Unanswered calls are not sampled: an engine that hangs must not look like overload.
        if answered:
            limit.answers += 1
            if not limit.answers & limit.mask:
                self._sample(call, entered, now)
        self._in_work -= 1
        self._left()
        if self._waiting:
            self._admit_waiting()

    def give_back(self) -> None:
        """Free the slot of a call that waits for something else."""
        self._in_work -= 1
        self._admit_waiting()

    def take_back(self) -> None:
        """Take a slot again, even if none is free."""
        self._in_work += 1

    def _sample(self, call: Call, entered: float, now: float) -> None:
        # The time without a slot says nothing about the load, nor does a wait for an engine that hangs: a call that
        # another engine answered then counts as if it had begun after that wait.
        if not call.notes.was_released:
            lost = call.notes.unanswered_seconds
            self.limit.sample(entered + lost, call.deadline.at + lost, now, self._in_work, len(self._waiting))

    def _check_in_time(self, remaining: float) -> None:
        """Raise Overloaded if a call with ``remaining`` seconds left could not be answered after a wait."""
        if self._admission.waiting >= self._admission.most_waiting:
            raise no_room("the service has reached its limit of waiting calls")
        rate = self.limit.rate
        if not rate:
            return
        # Little's law, over the calls before this one and the call itself.
        expected = (self._in_work + len(self._waiting) + 1) / rate * _CAUTION
        if expected > remaining:
            raise no_time("the service", expected - remaining)

    def _left(self) -> None:
        admission = self._admission
        admission.in_flight -= 1
        if admission.idle is not None and not admission.in_flight:
            admission.idle.set()

    def _admit_waiting(self) -> None:
        limit = self.limit
        while self._waiting and self._in_work < limit.value:
            waiting, _ = self._waiting.popitem(last=False)
            self._admission.waiting -= 1
            now = monotonic()
            if waiting.turn.done():
                # The caller left, and its task will run next.
                continue
            if waiting.until <= now or self._is_hopeless(waiting.until - now):
                self._fail_late(waiting)
            else:
                self._in_work += 1
                waiting.turn.set_result(now)

    def _is_hopeless(self, remaining: float) -> bool:
        """Return whether the deadline, ``remaining`` seconds from now, would certainly pass before the answer."""
        rate = self.limit.rate
        return bool(rate) and self._in_work / rate * _HOPELESS > remaining

    def _expire(self, waiting: _Waiting) -> None:
        if not waiting.turn.done():
            del self._waiting[waiting]
            self._admission.waiting -= 1
            self._fail_late(waiting)

    def _fail_late(self, waiting: _Waiting) -> None:
        self._admission.refusals.deadline += 1
        waiting.turn.set_exception(deadline_passed())

    def _give_up(self, waiting: _Waiting) -> None:
        """Release what a call holds that stopped waiting without being admitted."""
        if waiting in self._waiting:
            # The caller left.
            del self._waiting[waiting]
            self._admission.waiting -= 1
        elif not waiting.turn.cancelled() and waiting.turn.exception() is None:
            # The caller left just as it was admitted.
            self.give_back()
        self._left()


class _Waiting:
    """A call that waits for admission."""

    __slots__ = ("turn", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.turn: asyncio.Future[float] = asyncio.get_running_loop().create_future()
