"""The services as processes on this machine, which are started, watched and drained."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from intent_serving_client.addresses import address_of
from serving.runtime.settings import Transport
from serving.transport.hosts.listening import cause_of_refusal

ALGORITHM: Final = "intent-classification"
"""Algorithm that the local predictor serves."""

_OPTIONS: Final = (("grpc.max_reconnect_backoff_ms", 200), ("grpc.enable_http_proxy", 0))
_KILL_AFTER_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class StackOptions:
    """Addresses that the services listen on, and what they serve."""

    model_dir: Path
    host: str
    frontend_port: int
    predictor_port: int
    transport: Transport | None = None
    """Transport of the services; ``None`` leaves the choice to the settings of each service."""
    single_process: bool = False
    workers: int | None = None
    """Number of processes of the service that callers use; 0: one per core; ``None``: as set in its settings."""

    @property
    def frontend(self) -> str:
        """Address of the frontend."""
        return address_of(self.host, self.frontend_port)

    @property
    def predictor(self) -> str:
        """Address of the predictor; in a single process, that of the frontend."""
        return address_of(self.host, self.frontend_port if self.single_process else self.predictor_port)

    def services(self) -> tuple[_Planned, ...]:
        """Return the services in the order in which they are started."""
        transport = () if self.transport is None else ("--transport", self.transport)
        workers = () if self.workers is None else ("--workers", str(self.workers))
        if self.single_process:
            return (_Planned("model_service", self.frontend_port, "--port", (*transport, *workers)),)
        routes = ("--routes", f"{ALGORITHM}=predictor://{self.predictor}")
        return (
            _Planned("predictor", self.predictor_port, "--predictor-port", transport),
            _Planned("frontend", self.frontend_port, "--port", (*transport, *workers, *routes)),
        )


@dataclass(frozen=True, slots=True)
class _Planned:
    """A service to be started."""

    name: str
    port: int
    flag: str
    """Flag that sets the port."""
    flags: tuple[str, ...]


class ServiceEnded(Exception):
    """A service ended by itself, or cannot start."""


class LocalStack:
    """A frontend and a predictor, run by this Python interpreter as two processes or as one."""

    def __init__(self, options: StackOptions) -> None:
        self._options = options
        self._processes: dict[str, Process] = {}

    async def start(self, timeout: float) -> None:  # noqa: ASYNC109 - one limit for the whole start
        """Start the services, and return once the frontend answers.

        Raises:
            ServiceEnded: one of them did not start.
            TimeoutError: they were not ready within ``timeout`` seconds.
        """
        options = self._options
        for planned in options.services():
            await _check_free(options.host, planned.port, planned.flag)
        for planned in options.services():
            await self._start(planned)
        ready = asyncio.ensure_future(_wait_until_serving(options.frontend))
        ended = asyncio.ensure_future(self.wait_for_an_end())
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            ended.cancel()
        if ended.done() and not ended.cancelled():
            raise ServiceEnded(ended.result())
        ready.result()

    async def wait_for_an_end(self) -> str:
        """Return a message about the first service that ends by itself."""
        waits = {asyncio.ensure_future(process.wait()): name for name, process in self._processes.items()}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        first = next(iter(done))
        return f"the {waits[first]} ended with exit code {first.result()}; its log lines above say why"

    async def stop(self) -> None:
        """Drain the frontend, then the predictor."""
        for process in reversed(self._processes.values()):
            if process.returncode is not None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(_KILL_AFTER_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _start(self, planned: _Planned) -> None:
        options = self._options
        command: Sequence[str] = (
            sys.executable, "-P", "-m", planned.name, "--model-dir", str(options.model_dir), "--host", options.host,
            "--port", str(planned.port), *planned.flags,
        )  # fmt: skip
        # A separate session, so that Ctrl-C reaches only this process, which drains the services in order.
        self._processes[planned.name] = await asyncio.create_subprocess_exec(
            *command, start_new_session=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
        )


async def _check_free(host: str, port: int, flag: str) -> None:
    """Check that nothing listens there: another process would answer in place of our own service, and seem ready."""
    error = await cause_of_refusal(host, port)
    # The service itself reports any other fault.
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        raise ServiceEnded(
            f"another process listens on {address_of(host, port)}; stop it, or choose another port with {flag}"
        ) from error


async def _wait_until_serving(address: str) -> None:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        # The published types of the health stub omit Watch.
        health: Any = health_pb2_grpc.HealthStub(channel)
        async for update in health.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
            if update.status == health_pb2.HealthCheckResponse.SERVING:
                return
