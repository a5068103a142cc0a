"""Periodic checks of configuration files while a service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from serving.call.tasks import Tasks

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
"""Seconds between two checks. A check compares the files' names and times, which takes microseconds."""


class Following:
    """Checks files periodically until closed, one check at a time. Belongs to one event loop.

    Args:
        look: applies changes of the files. Its exceptions are logged, and the checks continue.
        files: the kind of files, for the log.
        seconds: time between two checks, in seconds.
    """

    def __init__(self, look: Callable[[], Awaitable[None]], files: str, seconds: float = LOOK_SECONDS) -> None:
        self._look = look
        self._files = files
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks()
        self._closed = False
        self._timer = self._wait()

    async def close(self) -> None:
        """Stop checking. A check in progress is cancelled."""
        self._closed = True
        self._timer.cancel()
        await self._tasks.close()

    def _wait(self) -> asyncio.TimerHandle:
        return self._loop.call_later(self._seconds, self._start)

    def _start(self) -> None:
        self._tasks.start(self._look_once())

    async def _look_once(self) -> None:
        try:
            await self._look()
        except Exception:
            log.exception("configuration files were not checked", files=self._files)
        if not self._closed:
            self._timer = self._wait()
