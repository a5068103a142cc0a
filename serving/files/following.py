"""Files of the configuration that are looked at again and again while a service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
"""Between two looks: by the files' names and times, which costs microseconds."""


class Following:
    """Looks at files until it is closed, once at a time. Belongs to one event loop.

    Args:
        look: takes in what has changed. What it raises is logged, and the next look may go well.
        files: what they are, for the log.
    """

    def __init__(self, look: Callable[[], Awaitable[None]], files: str) -> None:
        self._look = look
        self._files = files
        self._loop = asyncio.get_running_loop()
        self._looking: asyncio.Task[None] | None = None
        self._closed = False
        self._timer = self._wait()

    async def close(self) -> None:
        """Look no more; a look that is under way is cancelled."""
        self._closed = True
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _wait(self) -> asyncio.TimerHandle:
        return self._loop.call_later(LOOK_SECONDS, self._start)

    def _start(self) -> None:
        self._looking = self._loop.create_task(self._look_once())

    async def _look_once(self) -> None:
        try:
            await self._look()
        except Exception:
            log.exception("files of the configuration were not looked at", files=self._files)
        if not self._closed:
            self._timer = self._wait()
