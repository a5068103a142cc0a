"""Events in the calls of a service, for callers to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Notebook:
    """Events that have happened and permissions to continue, each under a name that a test makes up."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def note(self, name: str) -> None:
        self._event(name).set()

    async def noted(self, name: str) -> None:
        """Wait until the event has happened."""
        await self._event(name).wait()

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Note that the call has started, whether it was cancelled, and that it is over, however it ended."""
        self.note(f"{name} started")
        try:
            yield
        except asyncio.CancelledError:
            self.note(f"{name} cancelled")
            raise
        finally:
            self.note(f"{name} over")

    def _event(self, name: str) -> asyncio.Event:
        return self._events.setdefault(name, asyncio.Event())
