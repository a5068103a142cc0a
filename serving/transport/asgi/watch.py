"""Ends a call whose caller leaves, or whose deadline passes."""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from grpc_http2.alarms import Alarm, Alarms

Event: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]

# A caller who leaves is noticed, and its place free, within a twentieth of a second, or a fifth of the call's age:
# those who watch something for hours are not asked after all the time.
_FIRST_PAUSE_SECONDS: Final = 0.04
_LONGEST_PAUSE_SECONDS: Final = 1.0
_LONGER: Final = 1.2


class CallerLeft(Exception):
    """The caller went away before its call was over."""


class Ended(enum.Enum):
    """Why a call was ended from outside."""

    CALLER_LEFT = enum.auto()
    DEADLINE = enum.auto()


class CallWatch:
    """Cancels the current task, which serves the call, and tells why. An :class:`~serving.transport.expiry.Expiry`.

    Args:
        alarms: of the event loop.
    """

    __slots__ = ("_alarm", "_alarms", "_asks_at", "_deadline", "_next", "_pause", "_receive", "_task", "reason")

    def __init__(self, alarms: Alarms) -> None:
        task = asyncio.current_task(alarms.loop)
        if task is None:
            raise RuntimeError("a call is served by a task")
        self._task = task
        self._alarms = alarms
        self.reason: Ended | None = None
        self._alarm: Alarm | None = None
        self._deadline = math.inf
        self._asks_at = math.inf
        self._receive: Receive | None = None
        self._pause = _FIRST_PAUSE_SECONDS
        self._next: asyncio.Future[Event] | None = None

    def start(self, receive: Receive, seconds: float | None) -> None:
        """Do what :meth:`listen` and, with ``seconds``, :meth:`expire_after` do: one alarm serves both."""
        now = self._alarms.now()
        self._receive = receive
        self._asks_at = now + _FIRST_PAUSE_SECONDS
        if seconds is not None:
            self._deadline = now + seconds
        self._set_alarm()

    def expire_after(self, seconds: float) -> None:
        """End the call in so many seconds."""
        self._deadline = self._alarms.now() + seconds
        self._set_alarm()

    def listen(self, receive: Receive) -> None:
        """Watch for the caller to leave. Nobody else calls ``receive`` from now on.

        A server should answer when there is news. pyvoy answers at once, again and again, that a complete request has
        no more to it: so it is asked now and then, and most calls are over before it is asked at all.
        """
        self._receive = receive
        self._ask_later()

    def end_call(self, reason: Ended) -> None:
        """Cancel the call."""
        if self.reason is None:
            self.reason = reason
            self._task.cancel()

    def forgive(self) -> None:
        """Let the task go on after :meth:`end_call`, to send the status."""
        self._task.uncancel()

    def forgiven(self) -> bool:
        """Whether the deadline has passed, and nothing else ends the call; then the task goes on."""
        return self.reason is Ended.DEADLINE and self._task.uncancel() == 0

    def close(self) -> None:
        """Stop watching: the call is over."""
        self._receive = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._next is not None:
            self._stop_asking(self._next)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        at = min(self._deadline, self._asks_at)
        self._alarm = None if at == math.inf else self._alarms.at(at, self._on_alarm)

    def _on_alarm(self) -> None:
        now = self._alarms.now()
        if now >= self._deadline:
            self.end_call(Ended.DEADLINE)
            return
        if now >= self._asks_at and self._receive is not None:
            self._asks_at = math.inf
            # A future costs no task, and servers written for speed return one.
            self._next = as_future(self._receive())
            self._next.add_done_callback(self._on_event)
        self._set_alarm()

    def _ask_later(self) -> None:
        self._asks_at = self._alarms.now() + self._pause
        self._pause = min(self._pause * _LONGER, _LONGEST_PAUSE_SECONDS)
        self._set_alarm()

    def _on_event(self, event: asyncio.Future[Event]) -> None:
        if self._receive is None or event.cancelled() or event.exception() is not None:
            return
        if event.result()["type"] == "http.disconnect":
            self.end_call(Ended.CALLER_LEFT)
        else:
            self._ask_later()

    def _stop_asking(self, event: asyncio.Future[Event]) -> None:
        if isinstance(event, asyncio.Task):
            event.cancel()
        else:
            # The server sets its future whatever happens, and must not find it cancelled.
            event.remove_done_callback(self._on_event)


def as_future(event: Awaitable[Event]) -> asyncio.Future[Event]:
    """Return what a server's ``receive`` returned as a future; servers written for speed return one."""
    return event if isinstance(event, asyncio.Future) else asyncio.ensure_future(event)


async def left_alone(event: asyncio.Future[Event]) -> Event:
    """Return the event; who is cancelled meanwhile leaves the server's future alone."""
    return event.result() if event.done() else await asyncio.shield(event)


async def next_event(receive: Receive) -> Event:
    """Return the next event, its future left alone."""
    return await left_alone(as_future(receive()))
