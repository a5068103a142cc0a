"""Timers for events that rarely happen, such as the deadlines of calls, most of which are answered long before.

A timer of the event loop is an object that the loop makes and closes for each call. An alarm is only added to a set
when it is set, and removed when it is cancelled. Alarms due in the same hundredth of a second share a set, and one
timer of the loop rings those that are due; the timer runs only while alarms are set. An alarm may be late by a
hundredth of a second, and is never early.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

_RESOLUTION_SECONDS: Final = 0.01


def _nothing() -> None:
    """Do nothing, as a cancelled alarm does."""


class Alarm:
    """Call of a function at a given time, unless cancelled before."""

    __slots__ = ("_act", "_arguments", "_others")

    def __init__(self, act: Callable[..., object], arguments: tuple[Any, ...], others: set[Alarm]) -> None:
        self._act = act
        self._arguments = arguments
        self._others = others
        others.add(self)

    def cancel(self) -> None:
        """Cancel the alarm. A further call, or one after the alarm has rung, has no effect."""
        self._others.discard(self)
        # The holder of the alarm is also its callback's target: a cycle that only the garbage collector would free.
        self._act, self._arguments = _nothing, ()

    def ring(self) -> None:
        """Call the function now."""
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
        """Call ``act(*arguments)`` in ``seconds`` seconds."""
        return self.at(self.loop.time() + seconds, act, *arguments)

    def at(self, moment: float, act: Callable[..., object], *arguments: Any) -> Alarm:
        """Call ``act(*arguments)`` when the loop's time is ``moment``."""
        # The alarms of the sets up to ``_done`` have already rung.
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
                # An alarm may cancel another one.
                self._ring(alarms.pop())
        if self._sets:
            self._wait()
        else:
            self._ticking = False

    def _ring(self, alarm: Alarm) -> None:
        try:
            alarm.ring()
        except Exception as error:  # noqa: BLE001 - the loop reports it, and the other alarms still ring
            self.loop.call_exception_handler({"message": "an alarm failed", "exception": error})


_alarms: WeakKeyDictionary[asyncio.AbstractEventLoop, Alarms] = WeakKeyDictionary()


def alarms_of(loop: asyncio.AbstractEventLoop) -> Alarms:
    """Return the alarms of ``loop``."""
    alarms = _alarms.get(loop)
    if alarms is None:
        alarms = _alarms[loop] = Alarms(loop)
    return alarms
