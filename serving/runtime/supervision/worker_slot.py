"""One slot of the crew of workers: its process, and the replacement once that process ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from serving.runtime.supervision.pauses import RestartPauses
from serving.runtime.supervision.process import WorkerProcess
from serving.runtime.supervision.times import Times
from serving.workers.board import Board

log = structlog.get_logger()


_NOT_STARTED: Final = 1


class CannotStart(Exception):
    """A worker ended before it listened, in a slot in which no worker ever listened."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a worker ended with {code} before it listened")
        self.code = code
        """Exit code; for a signal, its negative number."""


class WorkerSlot:
    """Keeps a worker alive. Belongs to one event loop.

    Args:
        index: number of the slot, from 0.
        start: starts the process of a generation.
        board: board shared with the workers.
        times: time bounds.
        on_end: called with ``index`` when a process has ended.
    """

    def __init__(
        self,
        index: int,
        start: Callable[[int, int], Awaitable[WorkerProcess]],
        board: Board,
        times: Times,
        on_end: Callable[[int], None],
    ) -> None:
        self.worker: WorkerProcess | None = None
        """Current process of the slot."""
        self.restarts = 0
        """Number of processes that replaced one that ended."""
        self.listened = asyncio.Event()
        """Set once the first process listens."""
        self.was_ready = asyncio.Event()
        """Set once the first process is ready."""
        self._index = index
        self._start = start
        self._board = board
        self._times = times
        self._on_end = on_end
        self._pauses = RestartPauses(times)
        self.address = ""
        """Address on which the process listens, or its predecessor listened."""
        self._lived = 0.0
        self._stops = 0
        self._stopping = asyncio.Event()

    @property
    def serves(self) -> bool:
        """Whether the current process is ready."""
        return self.worker is not None and self.worker.ready.is_set()

    async def keep(self) -> int:
        """Run one process after another until :meth:`stop`; return the exit code of the process that was running then.

        Raises:
            CannotStart: the first process ended before it listened.
        """
        code = 0
        while not self._stopping.is_set():
            code = await self._run()
            if self._stopping.is_set():
                break
            if not self.listened.is_set():
                raise CannotStart(code)
            await self._pause(code)
            code = 0
        return code

    def stop(self) -> None:
        """Have the process drain and end, without a replacement; a second call has it end without waiting."""
        self._stops += 1
        self._stopping.set()
        if self.worker is not None:
            self.worker.stop()

    def kill(self) -> None:
        """Kill the process at once."""
        self._stopping.set()
        if self.worker is not None:
            self.worker.kill()

    async def _run(self) -> int:
        try:
            worker = await self._start(self._index, self._board.generations()[self._index])
        except OSError as error:
            log.error("worker cannot be started", worker=self._index, reason=error.strerror)
            self._lived = 0.0
            return _NOT_STARTED
        self.worker = worker
        # The slot may have been stopped while the process was being started.
        for _ in range(self._stops):
            worker.stop()
        reporting = asyncio.get_running_loop().create_task(self._report(worker))
        try:
            while not await worker.ends_within(self._times.look):
                if self._hangs() and not await worker.ends_within(self._times.look) and self._hangs():
                    log.error("worker hangs; killing it", worker=self._index, pid=worker.pid)
                    worker.kill()
            return await worker.wait()
        finally:
            await worker.close()
            reporting.cancel()
            self._board.end_generation(self._index)
            self._lived = time.monotonic() - worker.began
            self.worker = None
            self._on_end(self._index)

    async def _report(self, worker: WorkerProcess) -> None:
        await worker.listening.wait()
        self.address = worker.address
        self.listened.set()
        await worker.ready.wait()
        self.was_ready.set()

    def _hangs(self) -> bool:
        beat = self._board.last_beat(self._index)
        # The caller checks twice: after the machine was suspended, the last heartbeat of every worker is old.
        return bool(beat) and time.monotonic() - beat > self._times.hang

    async def _pause(self, code: int) -> None:
        pause = self._pauses.after(self._lived)
        how = {"signal": signal.Signals(-code).name} if code < 0 else {"exit_code": code}
        log.error(
            "worker ended; starting another one",
            worker=self._index,
            lived_seconds=round(self._lived, 3),
            pause_seconds=pause,
            **how,
        )
        self.restarts += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._stopping.wait()
