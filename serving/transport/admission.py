"""How many calls are served at the same time."""

from __future__ import annotations

import asyncio

from serving.call import Call
from serving.errors import OutOfCapacity


class Admission:
    """Lets calls in. Belongs to one event loop.

    Args:
        most: calls served at the same time; those beyond it are refused.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Calls that are let in and have not left."""
        return self._in_flight

    def enter(self, call: Call) -> None:
        """Let ``call`` in; it has to leave.

        Raises:
            OutOfCapacity: there are too many.
            DeadlineExceeded: its deadline has passed.
        """
        if self._in_flight >= self._most:
            raise OutOfCapacity("the service has as many calls in flight as it takes; try again shortly")
        call.deadline.check()
        self._in_flight += 1
        self._idle.clear()

    def leave(self) -> None:
        """Let the place of a call go."""
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    async def wait_until_idle(self) -> None:
        """Return once no call is in."""
        await self._idle.wait()
