"""Timers for things that nearly never happen: the deadlines of calls that are answered long before.

A timer of the event loop is an object of the loop, made and closed for each call. Here setting and cancelling an alarm
is putting it into a set and taking it out. Alarms of the same hundredth of a second share a set, and one timer of the
loop goes through those that are due; it stands still where nothing is set. An alarm may be late by that time, and is
never early.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

_RESOLUTION_SECONDS: Final = 0.01


def _nothing() -> None:
    """What a cancelled alarm does."""


class Alarm:
    """Something to be done at a time, unless it is cancelled before."""

    __slots__ = ("_act", "_arguments", "_others")

    def __init__(self, act: Callable[..., object], arguments: tuple[Any, ...], others: set[Alarm]) -> None:
        self._act = act
        self._arguments = arguments
        self._others = others
        others.add(self)

    def cancel(self) -> None:
        """Let the time pass; again, or afterwards, does nothing."""
        self._others.discard(self)
        # Whoever keeps the alarm is what it would tell: a circle that only the garbage collector would find.
        self._act, self._arguments = _nothing, ()

    def ring(self) -> None:
        """Do it now."""
        self._act(*self._arguments)


class Alarms:
    """The alarms of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._sets: dict[int, set[Alarm]] = {}
        self._done = 0
        self._ticking = False

    def now(self) -> float:
        """Return the loop's time, in seconds."""
        return self.loop.time()

    def after(self, seconds: float, act: Callable[..., object], *arguments: Any) -> Alarm:
        """Do ``act(*arguments)`` in so many seconds."""
        return self.at(self.loop.time() + seconds, act, *arguments)

    def at(self, moment: float, act: Callable[..., object], *arguments: Any) -> Alarm:
        """Do ``act(*arguments)`` when the loop's time is ``moment``."""
        # The sets up to now have rung.
        number = max(math.ceil(moment / _RESOLUTION_SECONDS), self._done + 1)
        others = self._sets.get(number)
        if others is None:
            others = self._sets[number] = set()
            if not self._ticking:
                self._ticking = True
                self._done = min(self._last_due(), number - 1)
                self._wait()
        return Alarm(act, arguments, others)

    def _last_due(self) -> int:
        return math.floor(self.loop.time() / _RESOLUTION_SECONDS)

    def _wait(self) -> None:
        self.loop.call_later(_RESOLUTION_SECONDS, self._tick)

    def _tick(self) -> None:
        now = self._last_due()
        due = [number for number in range(self._done + 1, now + 1) if number in self._sets]
        self._done = now
        for number in due:
            alarms = self._sets.pop(number)
            while alarms:
                # One may cancel another.
                self._ring(alarms.pop())
        if self._sets:
            self._wait()
        else:
            self._ticking = False

    def _ring(self, alarm: Alarm) -> None:
        try:
            alarm.ring()
        except Exception as error:  # noqa: BLE001 - the loop tells of it, and the others ring all the same
            self.loop.call_exception_handler({"message": "an alarm failed", "exception": error})


_alarms: WeakKeyDictionary[asyncio.AbstractEventLoop, Alarms] = WeakKeyDictionary()


def alarms_of(loop: asyncio.AbstractEventLoop) -> Alarms:
    """Return the alarms of ``loop``."""
    alarms = _alarms.get(loop)
    if alarms is None:
        alarms = _alarms[loop] = Alarms(loop)
    return alarms
