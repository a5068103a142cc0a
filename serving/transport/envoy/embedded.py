"""The ASGI application inside of Envoy: builds the workload it is told to, and serves it. A composition root."""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from serving.settings import ServerSettings
from serving.telemetry.logs import configure_logs
from serving.tls.certificates import Certificates
from serving.transport.asgi.application import Application, GrpcApplication
from serving.transport.asgi.context import Send
from serving.transport.asgi.watch import Receive
from serving.transport.envoy.control import VARIABLE, Control
from serving.transport.envoy.host import EnvoyHost
from serving.transport.envoy.secrets import write_secrets
from serving.transport.hosting import Program, built
from serving.transport.lifecycle import StopSignals, serve

log = structlog.get_logger()


class Embedded:
    """What the process serves, from Envoy's start to its end."""

    def __init__(self) -> None:
        told = json.loads(os.environ[VARIABLE])
        self._program = Program(**told["program"])
        module, _, name = told["settings_class"].partition(":")
        self._settings: ServerSettings = getattr(importlib.import_module(module), name)(**told["settings"])
        self._secrets = Path(told["secrets"])
        self._end = socket.socket(fileno=told["control"])
        self._signals = StopSignals()
        self._application: GrpcApplication | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request, or Envoy's own start and end."""
        if self._application is not None and scope["type"] == "http":
            await self._application(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        control = await Control.over(self._end)
        configure_logs(self._program.name, self._settings.log_level, self._settings.log_format)
        address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        drained = asyncio.Event()
        workload = built(self._program, self._settings, self._certificates())
        host = EnvoyHost(self._settings, workload, control, address, drained)
        self._application = host.application
        self._start(self._follow(control, address, drained))
        self._start(_ended(serve(host, self._settings, workload, self._signals), control))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _follow(self, control: Control, address: asyncio.Future[str], drained: asyncio.Event) -> None:
        while (message := await control.receive()) is not None:
            if message["kind"] == "listening":
                address.set_result(message["address"])
            elif message["kind"] == "stop":
                self._signals.ask()
            elif message["kind"] == "drained":
                drained.set()
        # The supervisor is gone, and nobody else would end this process.
        os.kill(os.getpid(), signal.SIGTERM)

    def _certificates(self) -> Certificates | None:
        """Return what Envoy encrypts with, which hears of what is new."""
        certificates = Certificates.of(self._settings)
        if certificates is not None:
            certificates.on_change(functools.partial(write_secrets, self._secrets))
        return certificates

    def _start(self, work: Any) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))


async def _ended(serving: Any, control: Control) -> None:
    try:
        await serving
    except Exception:
        log.exception("the service failed")
        control.tell("ended", code=1)
    else:
        control.tell("ended", code=0)


application: Application = Embedded()
