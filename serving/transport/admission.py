"""Which calls are served now, which wait, and which are refused.

Each kind of calls has a gate with a limit that adapts itself (:mod:`serving.transport.concurrency`); beyond it calls
wait, first come, first served. A call that would come to its deadline before its answer is refused at once, while it
still has time to be of use elsewhere. Over all of them stands a hard bound.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from time import monotonic
from typing import Final

from grpc_http2.alarms import alarms_of
from serving.call.call import Call
from serving.domain.errors import DeadlineExceeded, Overloaded, QuotaExceeded, ServingError
from serving.transport.concurrency import ConcurrencyLimit, Goal

MOST_WAITING: Final = 16_384
_GOAL: Final = Goal()
# What waits is answered later than was to be expected as often as sooner, and who was let in must not be refused late.
_CAUTION: Final = 1.5
# One that was let into the queue has to be hopeless before it is sent away. It is told that its deadline passes: who
# is refused, and may ask elsewhere, hears of that at once or not at all.
_HOPELESS: Final = 0.5
_SOONEST_AGAIN_SECONDS: Final = 0.05
_FULL_AGAIN_SECONDS: Final = 1.0


class Refusals:
    """How many calls were refused, and why: plain numbers that only grow."""

    __slots__ = ("deadline", "overload", "quota")

    def __init__(self) -> None:
        self.overload = 0
        """The service was full, or could not have answered in time."""
        self.deadline = 0
        """Their deadline had passed, on their way here or while they waited to be let in."""
        self.quota = 0
        """Their tenant asks for more than it may."""

    def count(self, error: ServingError) -> None:
        """Count a call that ended with ``error``, if that is a refusal and not the deadline's."""
        if isinstance(error, Overloaded):
            self.overload += 1
        elif isinstance(error, QuotaExceeded):
            self.quota += 1


class Admission:
    """Lets calls in. Belongs to one event loop.

    Args:
        most: calls that are in at the same time, those that wait among them; those beyond it are refused.
        most_waiting: calls that wait at the same time.
        goal: what the limits of the gates are adapted to.
    """

    def __init__(self, most: int, *, most_waiting: int = MOST_WAITING, goal: Goal = _GOAL) -> None:
        self.most = most
        self.most_waiting = most_waiting
        self.goal = goal
        self.refusals = Refusals()
        self.in_flight = 0
        """Calls that are in and have not left; gates count."""
        self.waiting = 0
        """Those of them that wait to be let in."""
        self.gates: dict[str, Gate] = {}
        """The gates, by method."""
        self.idle: asyncio.Event | None = None
        """Set when nothing is in flight any more; there from when somebody has waited for it."""

    def gate(self, method: str) -> Gate:
        """Return the gate of the calls of ``method``."""
        gate = self.gates.get(method)
        if gate is None:
            gate = self.gates[method] = Gate(self)
        return gate

    async def wait_until_idle(self) -> None:
        """Return once no call is in."""
        while self.in_flight:
            self.idle = self.idle or asyncio.Event()
            self.idle.clear()
            await self.idle.wait()


class Gate:
    """Lets calls of one kind in."""

    __slots__ = ("_admission", "_in_work", "_waiting", "limit")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._in_work = 0
        self._waiting: OrderedDict[_Waiting, None] = OrderedDict()
        self.limit = ConcurrencyLimit(admission.most, admission.goal)

    def enter(self, call: Call) -> float:
        """Let ``call`` in and return the time; it has to :meth:`leave`. 0 where it has to :meth:`wait`.

        Raises:
            Overloaded: there are too many.
            DeadlineExceeded: its deadline has passed.
        """
        now = monotonic()
        admission = self._admission
        if call.deadline.at <= now:
            admission.refusals.deadline += 1
            raise _too_late()
        if admission.in_flight >= admission.most:
            raise Overloaded(
                "the service has as many calls in flight as it takes; try again shortly", _FULL_AGAIN_SECONDS
            )
        if self._in_work >= self.limit.value:
            return 0.0
        self._in_work += 1
        admission.in_flight += 1
        call.notes.slot = self
        return now

    async def wait(self, call: Call) -> float:
        """Let ``call`` in when it is its turn and return the time; it has to :meth:`leave`.

        Raises:
            Overloaded: it cannot be answered in time.
            DeadlineExceeded: its deadline passed while it waited.
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
        """Let the place of a call go.

        Args:
            call: was let in.
            entered: when; 0 where it was not.
            answered: whether it has its answer.
        """
        if not entered:
            return
        now = monotonic()
        limit = self.limit
        # Who is not answered tells nothing: an engine that hangs must not look like a load that is too high for all.
        if answered:
            limit.answers += 1
            if not limit.answers & limit.mask:
                self._sample(call, entered, now)
        self._in_work -= 1
        self._left()
        if self._waiting:
            self._let_in()

    def give_back(self) -> None:
        """Let another call have the place of one that steps aside."""
        self._in_work -= 1
        self._let_in()

    def take_back(self) -> None:
        """Count one that steps back."""
        self._in_work += 1

    def _sample(self, call: Call, entered: float, now: float) -> None:
        # How long it was away says nothing of the load.
        if not call.notes.was_released:
            self.limit.sample(entered, call.deadline.at, now, self._in_work, len(self._waiting))

    def _check_in_time(self, remaining: float) -> None:
        """Raise Overloaded where a call with so many seconds left cannot be answered, were it to wait."""
        if self._admission.waiting >= self._admission.most_waiting:
            raise Overloaded("as many calls wait as the service takes; try again shortly", _FULL_AGAIN_SECONDS)
        rate = self.limit.rate
        if not rate:
            return
        # Little's law: all who are before it, and itself.
        expected = (self._in_work + len(self._waiting) + 1) / rate * _CAUTION
        if expected > remaining:
            raise _overloaded(expected - remaining)

    def _left(self) -> None:
        admission = self._admission
        admission.in_flight -= 1
        if admission.idle is not None and not admission.in_flight:
            admission.idle.set()

    def _let_in(self) -> None:
        limit = self.limit
        while self._waiting and self._in_work < limit.value:
            waiting, _ = self._waiting.popitem(last=False)
            self._admission.waiting -= 1
            now = monotonic()
            if waiting.turn.done():
                """Its caller has left, and its task is about to hear of it."""
            elif waiting.until <= now or self._is_hopeless(waiting.until - now):
                self._fail_late(waiting)
            else:
                self._in_work += 1
                waiting.turn.set_result(now)

    def _is_hopeless(self, remaining: float) -> bool:
        """Return whether a call with so many seconds left would come to its deadline before its answer."""
        rate = self.limit.rate
        return bool(rate) and self._in_work / rate * _HOPELESS > remaining

    def _expire(self, waiting: _Waiting) -> None:
        if not waiting.turn.done():
            del self._waiting[waiting]
            self._admission.waiting -= 1
            self._fail_late(waiting)

    def _fail_late(self, waiting: _Waiting) -> None:
        self._admission.refusals.deadline += 1
        waiting.turn.set_exception(_too_late())

    def _give_up(self, waiting: _Waiting) -> None:
        """Let go of what a call held that waits no more and was not let in."""
        if waiting in self._waiting:
            # Its caller has left.
            del self._waiting[waiting]
            self._admission.waiting -= 1
        elif not waiting.turn.cancelled() and waiting.turn.exception() is None:
            # It left just when it was let in.
            self.give_back()
        self._left()


class _Waiting:
    """A call that waits for its turn."""

    __slots__ = ("turn", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.turn: asyncio.Future[float] = asyncio.get_running_loop().create_future()


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline of the call has passed")


def _overloaded(retry_after: float) -> Overloaded:
    return Overloaded(
        "the service is asked for more than it can answer, and cannot answer this before its deadline; try again later",
        max(retry_after, _SOONEST_AGAIN_SECONDS),
    )
