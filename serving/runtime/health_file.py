"""The health of a service in a file, for health checks that cost next to nothing.

A check that starts Python takes half a second of processor time, so it times out on a busy machine, although the
service is healthy. The process therefore writes its health from its event loop, and the check reads one line. TLS, the
transport and the number of workers make no difference.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import structlog

from serving.runtime.lifecycle import Host

log = structlog.get_logger()

VALID_SECONDS: Final = 30
"""Time after which a note has expired, in seconds: longer than an event loop waits on an overloaded machine."""
BEAT_SECONDS: Final = 1.0
"""Interval of notes, in seconds."""

_UPTIME: Final = Path("/proc/uptime")


class HealthFile:
    """Writes health to a file every second, and whenever it changes, until :meth:`close`. Belongs to one event loop.

    The only line of the file is ``SERVING`` or ``NOT_SERVING``, then the time at which the note expires, in seconds
    since the machine booted. A file that cannot be written is logged once, and the service continues.

    Args:
        path: the file, on a local file system.
        is_serving: returns the present health.
        beat_seconds: interval of notes, in seconds.
        valid_seconds: time after which a note has expired, in seconds.
    """

    def __init__(
        self,
        path: Path,
        is_serving: Callable[[], bool],
        beat_seconds: float = BEAT_SECONDS,
        valid_seconds: int = VALID_SECONDS,
    ) -> None:
        self._path = path
        self._is_serving = is_serving
        self._beat_seconds = beat_seconds
        self._valid_seconds = valid_seconds
        self._loop = asyncio.get_running_loop()
        self._failed = False
        self._timer: asyncio.Handle = self._loop.call_soon(self._beat)

    def note(self) -> None:
        """Write the present health now."""
        health = "SERVING" if self._is_serving() else "NOT_SERVING"
        try:
            expires = int(float(_UPTIME.read_text().split()[0])) + self._valid_seconds
            # A line of constant length replaces the former one in place, so that a full disk cannot prevent it.
            with self._path.open("r+b" if self._path.exists() else "wb", buffering=0) as file:
                file.write(f"{health:<11} {expires:>10}\n".encode())
        except OSError as error:
            if not self._failed:
                log.error("health not noted; health checks that read it fail", reason=error.strerror)
            self._failed = True
        else:
            self._failed = False

    def close(self) -> None:
        """Stop, and remove the file: a process that has ended is not healthy."""
        self._timer.cancel()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _beat(self) -> None:
        self.note()
        self._timer = self._loop.call_later(self._beat_seconds, self._beat)


class NotedHost:
    """A :class:`~serving.runtime.lifecycle.Host` whose health is noted in a file while it listens.

    Args:
        host: host that does the work.
        path: the file.
    """

    def __init__(self, host: Host, path: Path) -> None:
        self._host = host
        self._path = path
        self._serving = False
        self._file: HealthFile | None = None

    async def start(self) -> str:
        """Listen; return the address."""
        address = await self._host.start()
        self._file = HealthFile(self._path, lambda: self._serving)
        return address

    async def set_serving(self, serving: bool) -> None:
        """Set whether health checks report SERVING."""
        self._serving = serving
        if self._file is not None:
            self._file.note()
        await self._host.set_serving(serving)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, and give those in flight ``grace`` seconds to end."""
        try:
            await self._host.stop(grace)
        finally:
            if self._file is not None:
                self._file.close()


def noted(host: Host, path: Path | None) -> Host:
    """Return ``host`` with its health noted in ``path``; ``host`` itself without a path."""
    return host if path is None else NotedHost(host, path)


@contextlib.contextmanager
def health_noted(path: Path | None, is_serving: Callable[[], bool]) -> Iterator[None]:
    """Within the block, write what ``is_serving`` returns to the file; do nothing without a path."""
    if path is None:
        yield
        return
    with contextlib.closing(HealthFile(path, is_serving)):
        yield
