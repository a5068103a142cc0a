"""Comparison of files with those that were read, many at a time."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, TypeAlias

import structlog

from serving.call.closing import close_in_order
from serving.call.tasks import Tasks
from serving.volume.file_identity import FileIdentity, have_changed

log = structlog.get_logger()

KnownFile: TypeAlias = tuple[str, FileIdentity | None]
"""A path, and the identity of the file that was there; ``None``: the file was missing."""

PROGRAM: Final = "serving.volume.freshness.process"
_START_AGAIN_SECONDS: Final = 10.0
_END_SECONDS: Final = 1.0
_BEGIN_SECONDS: Final = 10.0
_PATIENCE_SECONDS: Final = 5.0


class FileComparison(Protocol):
    """Compares known files with the present ones."""

    async def changed(self, groups: Sequence[Sequence[KnownFile]]) -> Sequence[bool]:
        """Return for each group whether one of its files has changed or cannot be read.

        Raises:
            TimeoutError: the comparison takes too long, for example if a volume hangs.
        """

    async def close(self) -> None:
        """Stop comparing."""


class ThreadComparison:
    """Compares in a thread of this process."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="look")

    async def changed(self, groups: Sequence[Sequence[KnownFile]]) -> Sequence[bool]:
        """Return for each group whether one of its files has changed or cannot be read."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, _changed, groups)

    async def close(self) -> None:
        """Stop comparing."""
        # A volume that hangs must not block the shutdown.
        self._pool.shutdown(wait=False, cancel_futures=True)


class ProcessComparison:
    """Compares in a separate process.

    A thread hands the interpreter's lock over and back with every file: with a thousand tenants, this happens thousands
    of times a second, and costs their answers more than everything else together. The first comparison starts the
    process. A thread compares until the process is running, and if the process cannot be started. A process that does
    not answer is replaced.

    Args:
        patience_seconds: maximum time for an answer of the process, in seconds.
    """

    def __init__(self, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._thread = ThreadComparison()
        self._process: _Process | None = None
        self._tasks = Tasks()
        self._starting: asyncio.Task[None] | None = None
        self._start_at = 0.0
        self._turn = asyncio.Lock()

    @property
    def process_id(self) -> int | None:
        """Id of the process that compares; ``None`` while a thread compares."""
        return None if self._process is None else self._process.process_id

    async def changed(self, groups: Sequence[Sequence[KnownFile]]) -> Sequence[bool]:
        """Return for each group whether one of its files has changed or cannot be read.

        Raises:
            TimeoutError: the process takes too long.
        """
        async with self._turn:
            found = None if self._process is None else await self._compared(self._process, groups)
        if found is not None:
            return found
        if self._starting is None and time.monotonic() >= self._start_at:
            self._starting = self._tasks.start(self._start())
        return await self._thread.changed(groups)

    async def close(self) -> None:
        """Stop comparing, and end the process."""
        await close_in_order(self._tasks.finish, self._thread.close, self._end_process)

    async def _end_process(self) -> None:
        if self._process is not None:
            await self._process.end()

    async def _compared(self, process: _Process, groups: Sequence[Sequence[KnownFile]]) -> Sequence[bool] | None:
        """Return the answer of the process; ``None`` if the process has ended. Raises TimeoutError."""
        try:
            async with asyncio.timeout(self._patience_seconds):
                answer = await process.compare(groups)
            if answer is not None:
                return answer
        except TimeoutError:
            log.warning("the process that compares files does not answer; starting another one")
            self._process = None
            self._starting = self._tasks.start(self._replace(process))
            # Do not compare in a thread meanwhile: if the volume hangs, the thread would hang too, and cannot be
            # killed.
            await asyncio.shield(self._starting)
            raise
        except OSError:
            pass
        log.warning("comparing files in a thread: the comparison process has ended")
        self._process = None
        await process.end()
        return None

    async def _replace(self, process: _Process) -> None:
        if await process.kill():
            await self._start()
        else:
            # Processes that hang must not accumulate.
            self._start_at = time.monotonic() + _START_AGAIN_SECONDS
            self._starting = None

    async def _start(self) -> None:
        self._start_at = time.monotonic() + _START_AGAIN_SECONDS
        try:
            self._process = await _begun()
        except OSError as error:
            log.warning("comparing files in a thread: no comparison process can be started", reason=str(error))
        finally:
            self._starting = None


async def _begun() -> _Process:
    """Start a process and return it once it answers; no caller waits for this. Raises OSError."""
    process = await _Process.start()
    try:
        async with asyncio.timeout(_BEGIN_SECONDS):
            answer = await process.compare([])
    except OSError:
        await process.kill()
        raise
    if answer is None:
        await process.end()
        raise OSError("the process ended at once")
    return process


class _Process:
    """The process, and the socket that connects to it."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._owed = 0
        """Number of answers still to come."""

    @classmethod
    async def start(cls) -> _Process:
        """Start the process. Raises OSError."""
        ours, its = socket.socketpair()
        with its:
            try:
                process = await asyncio.to_thread(_started, its)
                return cls(process, *await asyncio.open_connection(sock=ours))
            except BaseException:
                # The process ends by itself once this end of the socket is closed.
                ours.close()
                raise

    @property
    def process_id(self) -> int:
        """Id of the process in the operating system."""
        return self._process.pid

    async def compare(self, groups: Sequence[Sequence[KnownFile]]) -> Sequence[bool] | None:
        """Return the answer of the process; ``None`` if the process ends instead. Raises OSError."""
        self._writer.write(json.dumps(groups).encode() + b"\n")
        self._owed += 1
        await self._writer.drain()
        while line := await self._reader.readline():
            self._owed -= 1
            # Earlier answers were for callers that have since been cancelled.
            if not self._owed:
                answer: Sequence[bool] = json.loads(line)
                return answer
        return None

    async def end(self) -> None:
        """Ask the process to end, and kill it if it does not."""
        self._writer.close()
        if not await self._has_ended():
            # The volume hangs, and the process with it.
            await self.kill()

    async def kill(self) -> bool:
        """Kill the process, and return whether it has ended."""
        self._writer.close()
        self._process.kill()
        return await self._has_ended()

    async def _has_ended(self) -> bool:
        """Wait briefly for the process, and return whether it has ended."""
        try:
            await asyncio.to_thread(self._process.wait, _END_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True


def _started(its: socket.socket) -> subprocess.Popen[bytes]:
    # A separate session: signals of a terminal must only reach the service, which ends this process.
    command = [sys.executable, "-m", PROGRAM]
    stream = its.fileno()
    return subprocess.Popen(command, stdin=stream, stdout=stream, start_new_session=True)  # noqa: S603 - our own program


def _changed(groups: Sequence[Sequence[KnownFile]]) -> list[bool]:
    return [have_changed(files) for files in groups]
