"""One worker's process, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from typing import Any, Self

import structlog

from serving.runtime.supervision.frames import BadFrame, Message, encode, read_message
from serving.runtime.supervision.metrics.families import Family, received
from serving.runtime.supervision.order import Order

log = structlog.get_logger()


class WorkerProcess:
    """A process that serves. Belongs to one event loop; :meth:`start` creates it."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.address = ""
        """Address on which the process listens; empty until it listens."""
        self.listening = asyncio.Event()
        self.ready = asyncio.Event()
        self.began = time.monotonic()
        """Start of the process, in seconds of the monotonic clock."""
        self._process = process
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count()
        self._scrapes: dict[int, asyncio.Future[Sequence[Family] | None]] = {}
        loop = asyncio.get_running_loop()
        self._following = loop.create_task(self._follow())
        self._ended = loop.create_task(process.wait())

    @classmethod
    async def start(cls, order: Order, environment: Mapping[str, str]) -> Self:
        """Start a new interpreter that carries out ``order``."""
        ours, theirs = socket.socketpair()
        flags = ["-P"] if sys.flags.safe_path else []
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, *flags, "-m", "serving.runtime.worker"),
                    *(order.program, str(order.index), str(theirs.fileno())),
                    env=environment,
                    pass_fds=(theirs.fileno(), *order.descriptors()),
                    # A separate session: Ctrl-C reaches only the supervisor, which drains all workers.
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours)
        worker = cls(process, reader, writer)
        worker._send(encode("start", **order.fields()))
        return worker

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def stop(self) -> None:
        """Have the process drain and end; a second call has it end without waiting."""
        self._send(encode("stop"))

    def kill(self) -> None:
        """Kill the process at once."""
        if not self._ended.done():
            os.kill(self._process.pid, signal.SIGKILL)

    async def metrics(self, patience: float) -> Sequence[Family] | None:
        """Return the current metrics of the process; ``None`` if it does not answer within ``patience`` seconds."""
        number = next(self._numbers)
        answer: asyncio.Future[Sequence[Family] | None] = asyncio.get_running_loop().create_future()
        self._scrapes[number] = answer
        try:
            if self._following.done():
                return None
            self._send(encode("metrics", number=number))
            async with asyncio.timeout(patience):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._scrapes[number]

    async def ends_within(self, seconds: float) -> bool:
        """Return whether the process ends within ``seconds``."""
        done, _ = await asyncio.wait({self._ended}, timeout=seconds)
        return bool(done)

    async def wait(self) -> int:
        """Return the exit code once the process has ended; for a signal, its negative number."""
        code = await asyncio.shield(self._ended)
        # The last messages of the process may not have been read yet.
        await asyncio.wait({self._following})
        return code

    async def close(self) -> None:
        """Kill the process if it has not ended, and close the sockets."""
        self.kill()
        await self.wait()
        self._writer.close()

    def _send(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)

    async def _follow(self) -> None:
        try:
            while (message := await read_message(self._reader)) is not None:
                self._take(message)
        except BadFrame:
            log.exception("message of a worker cannot be decoded; killing the worker", pid=self.pid)
            self.kill()
        finally:
            for answer in self._scrapes.values():
                if not answer.done():
                    answer.set_result(None)

    def _take(self, message: Message) -> None:
        kind = message["kind"]
        if kind == "listening":
            self.address = message["address"]
            self.listening.set()
        elif kind == "ready":
            self.ready.set()
        elif kind == "metrics":
            answer = self._scrapes.get(message["number"])
            if answer is not None and not answer.done():
                families: Any = message["families"]
                answer.set_result(None if families is None else received(families))
