"""How many calls of a kind a service should have in work at the same time, found out by how long they take.

Where calls arrive faster than they are answered, every further one that is let in makes all of them slower and none of
them sooner. By Little's law, calls in work are answers a second times the seconds of each; so where calls take longer
than they should, the limit becomes the answers a second times the seconds that they should take, and where there is
room it grows. Netflix's concurrency-limits (https://github.com/Netflix/concurrency-limits) adapt in this way too, and
hold the time that calls take against the time without load. That would take batches for overload: here a thousand calls
that wait for each other's batch are served best together. So a call should take no longer than a time that callers do
not mind; or some times that without load, where this is longer; or half of what its own deadline leaves, where this is
shorter.
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
# A call counts as so late at most: one that hung must not weigh more than many that did not.
_LATEST: Final = 2.0
# The limit grows only where there is some room, so that it comes to rest.
_ROOM: Final = 0.9
_FASTEST_GROWTH: Final = 2.0
_SMOOTHING: Final = 0.5
_DRIFT: Final = 0.05


@dataclass(frozen=True, slots=True)
class Goal:
    """What a limit is adapted to."""

    least: int = 16
    """Calls that may always be in work."""
    seconds: float = 0.5
    """A call may take so long."""
    tolerance: float = 4.0
    """Or so many times as long as without load."""


class ConcurrencyLimit:
    """The limit for one kind of calls. Belongs to one event loop. All times are seconds of one clock.

    Args:
        most: where it begins, and what it never exceeds.
        goal: what it is adapted to.
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
        """Calls that may be in work at the same time."""
        self.rate = 0.0
        """Answers a second while calls had to wait, as measured last; 0 where that is not known."""
        self.answers = 0
        """Calls that were answered since the last measurement; who lets them go counts."""
        self.mask = 0
        """Those are told of whose number among these has none of these bits: where there are many, some will do."""
        self._changed = self._wait_began = self._waited = -math.inf
        self._answers_before_wait = 0
        self._began = -math.inf
        self._samples = 0
        self._lateness = self._allowed = 0.0
        self._fastest = math.inf

    def sample(self, entered: float, until: float, now: float, in_work: int, waiting: int) -> None:
        """Take into account how long a call took that was answered, or too late.

        Args:
            entered: when it was let in.
            until: its deadline.
            now: when it left.
            in_work: calls in work, itself among them.
            waiting: calls that wait to be let in.
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
        """Take into account that somebody has to wait, and nobody had to before."""
        if now - max(self._changed, self._waited) > _CALM_SECONDS:
            # What was found out under load long ago may hold no more.
            self.value = self._most
            self.rate = 0.0
        self._wait_began = self._waited = now
        self._answers_before_wait = self.answers

    def _adapt(self, entered: float, now: float, in_work: int, waiting: int) -> None:
        lateness = self._lateness / self._samples
        full = waiting > 0 or in_work >= self.value
        if lateness > 1.0:
            # A long window has pauses in it, in which nobody asked for anything, and then its rate says nothing.
            if in_work > self._least and now - self._began < _LONG_WINDOW_SECONDS:
                rate = self.answers / (now - self._began)
                self.rate = self.rate or rate
                self._change(min(self.value, round(rate * self._allowed / self._samples)), now)
        elif full and lateness < _ROOM and entered >= self._changed:
            # What the last change has done is known by now.
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
        # Answers come in batches, so that one window alone says too much or too little.
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
