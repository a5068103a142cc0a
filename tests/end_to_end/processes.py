"""Real services as processes of this machine, for tests: started on free ports, ended by id."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.conftest import SHARED

START_SECONDS = 60
STOP_SECONDS = 40


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Service:
    """One running service."""

    name: str
    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until_serving(self) -> None:
        with grpc.insecure_channel(self.address) as channel:
            # The published types of the health stub leave Watch out.
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=START_SECONDS)
            for update in watch:
                if update.status == health_pb2.HealthCheckResponse.SERVING:
                    return

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def events(self) -> list[dict[str, Any]]:
        """The log lines so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@dataclass
class Stack:
    """A frontend and a predictor over one folder of models."""

    models: Path
    frontend: Service
    predictor: Service


def start(name: str, models: Path, logs: Path, *flags: str, port: int | None = None) -> Service:
    """Start a service without waiting for it."""
    port = free_port() if port is None else port
    log = logs / f"{name}-{port}.log"
    command = [sys.executable, "-m", name, "--model-dir", str(models), "--port", str(port), "--log-format", "json"]
    with log.open("ab") as output:
        process = subprocess.Popen([*command, *flags], stdout=output, stderr=output, env=_environment())
    return Service(name, f"127.0.0.1:{port}", process, log)


@contextmanager
def stack(
    models: Path, logs: Path, *, frontend: tuple[str, ...] = (), predictor: tuple[str, ...] = ()
) -> Iterator[Stack]:
    """Both services, ready; ended behind the block."""
    started: list[Service] = []
    try:
        engine = start("predictor", models, logs, *predictor)
        started.append(engine)
        routes = f"intent-classification=predictor://{engine.address}"
        router = start("frontend", models, logs, "--routes", routes, *frontend)
        started.append(router)
        router.wait_until_serving()
        yield Stack(models, router, engine)
    finally:
        for service in reversed(started):
            if service.process.poll() is None:
                service.process.kill()
                service.process.wait(STOP_SECONDS)


def grpcurl() -> str:
    """The real grpcurl, or a skip that says where it is looked for."""
    tool = SHARED / "tools" / "grpcurl"
    found = str(tool) if tool.exists() else shutil.which("grpcurl")
    if found is None:
        pytest.skip("no grpcurl: neither on the PATH nor in INTENT_SHARED/tools")
    return found


def _environment() -> dict[str, str]:
    ours = ("INTENT_FRONTEND_", "INTENT_PREDICTOR_", "MODEL_DIR")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
