"""Requests that a worker stop."""

from __future__ import annotations

import asyncio
import signal

from serving.runtime.lifecycle import StopSignals


class Stopping:
    """Makes one request of the supervisor's orders and of signals, which a service manager may send to all processes.

    A worker ends without waiting only after a second order from the supervisor. Belongs to the running event loop.
    """

    def __init__(self) -> None:
        self.signals = StopSignals()
        self._loop = asyncio.get_running_loop()
        self._orders = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.signals.first.set)

    def order(self) -> None:
        """Accept an order from the supervisor. Called in any thread."""
        self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._orders += 1
        (self.signals.first if self._orders == 1 else self.signals.second).set()
