"""Adaptive limit on how many calls of one kind are in progress at the same time, derived from how long they take.

If calls arrive faster than they are answered, every further call that is admitted slows down all of them and speeds up
none. By Little's law, the number of calls in progress is the answers per second times the seconds that each call takes.
So if calls take longer than they should, the limit becomes the answers per second times the seconds that a call should
take; if there is spare capacity, the limit grows. Netflix's concurrency-limits
(https://github.com/Netflix/concurrency-limits) adapts in this way too, but compares the time that calls take with their
time without load. That comparison would mistake batches for overload: here, a thousand calls that wait for each other's
batch are served best together. So a call should take no longer than a time that callers accept; or a multiple of its
time without load, if that is longer; or half of the time that its own deadline leaves, if that is shorter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_WINDOW_SECONDS: Final = 0.1
_WINDOW_SAMPLES: Final = 16
_LONG_WINDOW_SECONDS: Final = 5.0
_CALM_SECONDS: Final = 10.0
_MANY_ANSWERS: Final = 256
_SOME: Final = 0b11
_SHARE_OF_DEADLINE: Final = 0.5
# Cap on the lateness of one call: a call that hung must not outweigh many that did not.
_LATEST: Final = 2.0
# The limit grows only if there is some spare capacity, so that it converges.
_ROOM: Final = 0.9
_FASTEST_GROWTH: Final = 2.0
_SMOOTHING: Final = 0.5
_DRIFT: Final = 0.05


@dataclass(frozen=True, slots=True)
class Goal:
    """Goal that a limit adapts to."""

    least: int = 16
    """Number of calls that may always be in progress."""
    seconds: float = 0.5
    """Time that a call may take, in seconds."""
    tolerance: float = 4.0
    """Multiple of its time without load that a call may take instead, if that is longer."""


class ConcurrencyLimit:
    """The limit for one kind of calls. Belongs to one event loop. All times are in seconds of one clock.

    Args:
        most: initial value and upper bound of the limit.
        goal: goal that the limit adapts to.
    """

    __slots__ = (
        "_allowed", "_answers_before_wait", "_began", "_changed", "_fastest", "_goal", "_goal_seconds", "_lateness",
        "_least", "_most", "_samples", "_unloaded", "_wait_began", "_waited", "answers", "mask", "rate", "value",
    )  # fmt: skip

    def __init__(self, most: int, goal: Goal) -> None:
        self._most = most
        self._goal = goal
        self._least = min(goal.least, most)
        self._unloaded = math.inf
        self._goal_seconds = goal.seconds
        self.value = most
        """Number of calls that may be in progress at the same time."""
        self.rate = 0.0
        """Last measured answers per second while calls had to wait; 0 if not known."""
        self.answers = 0
        """Number of calls answered since the last measurement; counted by the gate that releases their slots."""
        self.mask = 0
        """Bit mask: a call is sampled if its number in ``answers`` has none of these bits. A sample suffices."""
        self._changed = self._wait_began = self._waited = -math.inf
        self._answers_before_wait = 0
        self._began = -math.inf
        self._samples = 0
        self._lateness = self._allowed = 0.0
        self._fastest = math.inf

    def sample(self, entered: float, until: float, now: float, in_work: int, waiting: int) -> None:
        """Record how long a call took that was answered, or was too late.

        Args:
            entered: time when the call was admitted.
            until: deadline of the call.
            now: time when the call left.
            in_work: number of calls in progress, including this one.
            waiting: number of calls that wait for admission.
        """
        took = now - entered
        allowed = min(self._goal_seconds, (until - entered) * _SHARE_OF_DEADLINE)
        self._lateness += min(_LATEST, took / allowed)
        self._allowed += allowed
        self._fastest = min(self._fastest, took)
        self._samples += 1
        if self._samples >= _WINDOW_SAMPLES and now - self._began >= _WINDOW_SECONDS:
            self._adapt(entered, now, in_work, waiting)
            self._begin(now)

    def first_waits(self, now: float) -> None:
        """Record that a call has to wait, and that no call was waiting before."""
        if now - max(self._changed, self._waited) > _CALM_SECONDS:
            # A limit found under load long ago may no longer be right.
            self.value = self._most
            self.rate = 0.0
        self._wait_began = self._waited = now
        self._answers_before_wait = self.answers

    def _adapt(self, entered: float, now: float, in_work: int, waiting: int) -> None:
        lateness = self._lateness / self._samples
        full = waiting > 0 or in_work >= self.value
        if lateness > 1.0:
            # A long window contains pauses without calls, so its rate is meaningless.
            if in_work > self._least and now - self._began < _LONG_WINDOW_SECONDS:
                rate = self.answers / (now - self._began)
                self.rate = self.rate or rate
                self._change(min(self.value, round(rate * self._allowed / self._samples)), now)
        elif full and lateness < _ROOM and entered >= self._changed:
            # The call was admitted after the last change, so its time shows the effect of that change.
            self._change(round(self.value * min(_FASTEST_GROWTH, _ROOM / lateness)) + 1, now)
        if waiting:
            self._waited = now
            self._measure_rate(now)
        self._learn_of_no_load(full=full, in_work=in_work)
        self.mask = _SOME if self.answers > _MANY_ANSWERS else 0

    def _change(self, value: int, now: float) -> None:
        self.value = min(self._most, max(self._least, value))
        self._changed = now

    def _measure_rate(self, now: float) -> None:
        seconds = now - max(self._began, self._wait_began)
        if seconds < _WINDOW_SECONDS:
            return
        answers = self.answers - (self._answers_before_wait if self._wait_began > self._began else 0)
        rate = answers / seconds
        # Answers come in batches, so the rate of a single window is too high or too low.
        self.rate += (rate - self.rate) * (_SMOOTHING if self.rate else 1.0)

    def _learn_of_no_load(self, *, full: bool, in_work: int) -> None:
        if self._fastest < self._unloaded:
            self._unloaded = self._fastest
        elif not full and in_work <= self._least:
            self._unloaded += (self._fastest - self._unloaded) * _DRIFT
        self._goal_seconds = max(self._goal.seconds, self._unloaded * self._goal.tolerance)

    def _begin(self, now: float) -> None:
        self._began = now
        self._samples = self.answers = 0
        self._lateness = self._allowed = 0.0
        self._fastest = math.inf
