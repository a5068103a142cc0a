"""Ends a call whose caller leaves, or whose deadline passes."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

Event: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]


class CallerLeft(Exception):
    """The caller went away before its call was over."""


class Ended(enum.Enum):
    """Why a call was ended from outside."""

    CALLER_LEFT = enum.auto()
    DEADLINE = enum.auto()


class CallWatch:
    """Cancels the current task, which serves the call, and tells why.

    Args:
        seconds: until the deadline; ``None`` where there is none.
    """

    def __init__(self, seconds: float | None) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is served by a task")
        self._task = task
        self._loop = asyncio.get_running_loop()
        self.reason: Ended | None = None
        self.deadline: float | None = None
        """On the clock of the event loop, which is the monotonic one."""
        self._timer: asyncio.TimerHandle | None = None
        self._next: asyncio.Future[Event] | None = None
        if seconds is not None:
            self.deadline = self._loop.time() + seconds
            self.expire_after(seconds)

    def expire_after(self, seconds: float) -> None:
        """End the call in so many seconds."""
        self._timer = self._loop.call_later(seconds, self.end_call, Ended.DEADLINE)

    def listen(self, receive: Receive) -> None:
        """Watch for the caller to leave. Nobody else calls ``receive`` from now on."""
        # A future costs no task, and servers written for speed return one.
        self._next = asyncio.ensure_future(receive())
        self._next.add_done_callback(self._on_event)

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
        if self._timer is not None:
            self._timer.cancel()
        if isinstance(self._next, asyncio.Task):
            self._next.cancel()
        elif self._next is not None:
            # The server sets its future whatever happens, and must not find it cancelled.
            self._next.remove_done_callback(self._on_event)

    def _on_event(self, event: asyncio.Future[Event]) -> None:
        # What else follows the end of a request is nothing to its call.
        if not event.cancelled() and event.exception() is None and event.result()["type"] == "http.disconnect":
            self.end_call(Ended.CALLER_LEFT)


async def next_event(receive: Receive) -> Event:
    """Return the next event; who is cancelled meanwhile leaves the server's future alone."""
    event = asyncio.ensure_future(receive())
    return event.result() if event.done() else await asyncio.shield(event)
