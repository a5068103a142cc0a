"""Real services as processes on this machine, for tests: started on free ports, ended by id."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.builders import free_port
from tests.conftest import ROOT, SHARED

START_SECONDS = 60
STOP_SECONDS = 40
TRANSPORT = os.environ.get("INTENT_TEST_TRANSPORT", "http2")
"""Transport that hosts the services unless a test names another."""


@dataclass
class Service:
    """One running service."""

    name: str
    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until_serving(self) -> None:
        with grpc.insecure_channel(self.address) as channel:
            # The published type stubs of the health service omit Watch.
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=START_SECONDS)
            for update in watch:
                if update.status == health_pb2.HealthCheckResponse.SERVING:
                    return

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; return the exit code once the processes that the service started have ended too."""
        family = self.family()
        if family:
            self.process.send_signal(number)
        code = self.process.wait(STOP_SECONDS)
        wait_until_ended(family)
        return code

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the service and to the processes that it has started."""
        for process in self.family():
            process.send_signal(number)

    def family(self) -> list[psutil.Process]:
        """Return the service's process and those that it has started; empty once the service has ended."""
        if self.process.poll() is not None:
            return []
        itself = psutil.Process(self.process.pid)
        return [itself, *itself.children(recursive=True)]

    def wait_until_logged(self, event: str) -> dict[str, Any]:
        """Return the first log line of ``event``, which must be written before the process ends."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            # Check for the end first: the last lines of an ended process are in the log.
            ended = self.process.poll() is not None
            found = next((line for line in self.events() if line["event"] == event), None)
            if found is not None:
                return found
            assert not ended, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(f"{self.name} has not logged {event!r}")

    def kill(self) -> None:
        """End the service and the processes that it has started at once, unless they have ended already.

        Processes that are suspended would not notice that the service has ended.
        """
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(STOP_SECONDS)
        wait_until_ended(family)

    def events(self) -> list[dict[str, Any]]:
        """Return the log lines so far, except one that is still being written."""
        whole, _, _ = self.log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


def wait_until_ended(processes: Sequence[psutil.Process]) -> None:
    """Wait until none of the processes runs any more, whether or not their exit codes have been collected."""
    deadline = time.monotonic() + STOP_SECONDS
    while left := [process for process in processes if not has_ended(process)]:
        assert time.monotonic() < deadline, f"they live on: {left}"
        time.sleep(0.01)


def has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@dataclass
class Stack:
    """A frontend and a predictor over one folder of models."""

    models: Path
    frontend: Service
    predictor: Service


def transports() -> list[str]:
    """Return the transports that can host services, as parameters of tests."""
    return ["grpcio", "http2"]


def start(
    name: str,
    models: Path,
    logs: Path,
    *flags: str,
    port: int | None = None,
    transport: str = TRANSPORT,
    before: Sequence[str] = (),
) -> Service:
    """Start a service without waiting for it; the command ``before``, if any, starts it in turn."""
    port = free_port() if port is None else port
    log = logs / f"{name}-{port}.log"
    command = [*before, sys.executable, "-m", name, "--model-dir", str(models), "--port", str(port)]
    command += ["--log-format", "json", "--transport", transport, *flags]
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=_environment(), cwd=ROOT)
    return Service(name, f"127.0.0.1:{port}", process, log)


@contextmanager
def running_service(name: str, models: Path, logs: Path, *flags: str, transport: str = TRANSPORT) -> Iterator[Service]:
    """Run one service; yield it ready, and end it after the block."""
    service = start(name, models, logs, *flags, transport=transport)
    try:
        service.wait_until_serving()
        yield service
    finally:
        service.kill()


@contextmanager
def stack(
    models: Path,
    logs: Path,
    *,
    frontend: tuple[str, ...] = (),
    predictor: tuple[str, ...] = (),
    transport: str = TRANSPORT,
) -> Iterator[Stack]:
    """Run both services; yield them ready, and end them after the block."""
    started: list[Service] = []
    try:
        engine = start("predictor", models, logs, *predictor, transport=transport)
        started.append(engine)
        routes = f"intent-classification=predictor://{engine.address}"
        router = start("frontend", models, logs, "--routes", routes, *frontend, transport=transport)
        started.append(router)
        router.wait_until_serving()
        yield Stack(models, router, engine)
    finally:
        for service in reversed(started):
            service.kill()


def grpcurl() -> str:
    """Return the real grpcurl, or skip the test and say where grpcurl is looked for."""
    tool = SHARED / "tools" / "grpcurl"
    found = str(tool) if tool.exists() else shutil.which("grpcurl")
    if found is None:
        pytest.skip("no grpcurl: neither on the PATH nor in INTENT_SHARED/tools")
    return found


def _environment() -> dict[str, str]:
    ours = ("INTENT_FRONTEND_", "INTENT_PREDICTOR_", "TRANSPORTS_", "MODEL_DIR")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
