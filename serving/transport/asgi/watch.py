"""Ends a call whose caller leaves, or whose deadline passes."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from serving.transport.alarms import Alarm, alarms_of

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
    """Cancels the current task, which serves the call, and tells why."""

    __slots__ = ("_alarms", "_asking", "_next", "_pause", "_receive", "_task", "_timer", "reason")

    def __init__(self) -> None:
        # Asked for once: the loop makes a system call of every look.
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a call is served by a task")
        self._task = task
        self._alarms = alarms_of(loop)
        self.reason: Ended | None = None
        self._timer: Alarm | None = None
        self._receive: Receive | None = None
        self._pause = _FIRST_PAUSE_SECONDS
        self._asking: Alarm | None = None
        self._next: asyncio.Future[Event] | None = None

    def expire_after(self, seconds: float) -> None:
        """End the call in so many seconds."""
        self._timer = self._alarms.after(seconds, self.end_call, Ended.DEADLINE)

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

    def close(self) -> None:
        """Stop watching: the call is over."""
        self._receive = None
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
        if isinstance(self._next, asyncio.Task):
            self._next.cancel()
        elif self._next is not None:
            # The server sets its future whatever happens, and must not find it cancelled.
            self._next.remove_done_callback(self._on_event)

    def _ask_later(self) -> None:
        self._asking = self._alarms.after(self._pause, self._ask)
        self._pause = min(self._pause * _LONGER, _LONGEST_PAUSE_SECONDS)

    def _ask(self) -> None:
        if self._receive is not None:
            # A future costs no task, and servers written for speed return one.
            self._next = as_future(self._receive())
            self._next.add_done_callback(self._on_event)

    def _on_event(self, event: asyncio.Future[Event]) -> None:
        if self._receive is None or event.cancelled() or event.exception() is not None:
            return
        if event.result()["type"] == "http.disconnect":
            self.end_call(Ended.CALLER_LEFT)
        else:
            self._ask_later()


def as_future(event: Awaitable[Event]) -> asyncio.Future[Event]:
    """Return what a server's ``receive`` returned as a future; servers written for speed return one."""
    return event if isinstance(event, asyncio.Future) else asyncio.ensure_future(event)


async def left_alone(event: asyncio.Future[Event]) -> Event:
    """Return the event; who is cancelled meanwhile leaves the server's future alone."""
    return event.result() if event.done() else await asyncio.shield(event)


async def next_event(receive: Receive) -> Event:
    """Return the next event, its future left alone."""
    return await left_alone(as_future(receive()))
