"""Closing of several things in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack


async def close_in_order(*closes: Callable[[], Awaitable[object] | None]) -> None:
    """Call ``closes`` one after the other, and await each. All are called, even if one fails; a failure is raised."""
    async with AsyncExitStack() as stack:
        for close in reversed(closes):
            stack.push_async_callback(_closed, close)


async def _closed(close: Callable[[], Awaitable[object] | None]) -> None:
    closing = close()
    if closing is not None:
        await closing
