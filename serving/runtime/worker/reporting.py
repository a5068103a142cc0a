"""A host whose supervisor learns how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from serving.runtime.lifecycle import Host
from serving.runtime.supervision.frames import BlockingFrames


class ReportingHost:
    """A :class:`~serving.runtime.lifecycle.Host` that reports that it listens, and that it is ready.

    Args:
        host: does the work.
        frames: leads to the supervisor.
        before: awaited before it listens.
    """

    def __init__(self, host: Host, frames: BlockingFrames, before: Callable[[], Awaitable[None]]) -> None:
        self._host = host
        self._frames = frames
        self._before = before

    async def start(self) -> str:
        """Listen; return the address."""
        await self._before()
        address = await self._host.start()
        # A supervisor that does not read must not hold up the event loop.
        await asyncio.to_thread(self._frames.send, "listening", address=address)
        return address

    async def set_serving(self, serving: bool) -> None:
        """Tell health checks."""
        await self._host.set_serving(serving)
        if serving:
            await asyncio.to_thread(self._frames.send, "ready")

    async def stop(self, grace: float) -> None:
        """Refuse new calls, let those in flight end within ``grace`` seconds."""
        await self._host.stop(grace)
