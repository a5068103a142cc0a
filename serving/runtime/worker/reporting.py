"""A host that reports its progress to the supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from serving.runtime.lifecycle import Host
from serving.runtime.supervision.frames import BlockingFrames


class ReportingHost:
    """A :class:`~serving.runtime.lifecycle.Host` that reports that it listens, and that it is ready.

    Args:
        host: host that does the work.
        frames: connection to the supervisor.
        before: awaited before the host listens.
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
        """Set whether health checks report SERVING."""
        await self._host.set_serving(serving)
        if serving:
            await asyncio.to_thread(self._frames.send, "ready")

    async def stop(self, grace: float) -> None:
        """Refuse new calls, and give those in flight ``grace`` seconds to end."""
        await self._host.stop(grace)
