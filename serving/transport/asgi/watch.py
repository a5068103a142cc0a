"""Ends a call whose caller leaves, or whose deadline passes."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]

# Most calls are over by then, and cost no task that waits for the caller to leave.
_LOOK_AFTER_SECONDS: Final = 0.02


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
        self.reason: Ended | None = None
        self._task = task
        self._loop = asyncio.get_running_loop()
        self.deadline = None if seconds is None else self._loop.time() + seconds
        """On the clock of the event loop, which is the monotonic one."""
        self._timer: asyncio.TimerHandle | None = None
        self._listener: asyncio.Task[None] | None = None

    def begin(self, receive: Receive | None, *, at_once: bool = False) -> None:
        """Watch the deadline, and the caller where ``receive`` is given, which nobody else calls from now on."""
        remaining = None if self.deadline is None else max(0.0, self.deadline - self._loop.time())
        if receive is None:
            self._time(remaining)
        elif at_once:
            self._listen(receive)
        elif remaining is not None and remaining < _LOOK_AFTER_SECONDS:
            self._time(remaining)
        else:
            self._timer = self._loop.call_later(_LOOK_AFTER_SECONDS, self._listen, receive)

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
        if self._listener is not None:
            self._listener.cancel()

    def _time(self, remaining: float | None) -> None:
        if remaining is not None:
            self._timer = self._loop.call_later(remaining, self.end_call, Ended.DEADLINE)

    def _listen(self, receive: Receive) -> None:
        self._listener = self._loop.create_task(self._until_the_caller_leaves(receive))
        self._time(None if self.deadline is None else max(0.0, self.deadline - self._loop.time()))

    async def _until_the_caller_leaves(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            # What follows the request's end is nothing to a unary call.
            pass
        self.end_call(Ended.CALLER_LEFT)
