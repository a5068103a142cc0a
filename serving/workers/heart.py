"""Heartbeats of a worker's event loop."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from serving.workers.membership import Membership

BEAT_SECONDS: Final = 1.0
"""Interval of heartbeats, in seconds."""


class Heart:
    """Records on the board that the event loop runs, until :meth:`stop`. Belongs to that event loop."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle = self._loop.call_soon(self._beat)

    def stop(self) -> None:
        """Stop the heartbeats."""
        self._timer.cancel()

    def _beat(self) -> None:
        self._membership.board.beat(self._membership.index, time.monotonic())
        self._timer = self._loop.call_later(BEAT_SECONDS, self._beat)
