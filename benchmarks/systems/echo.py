"""Bare grpcio: one asyncio echo server on uvloop, as a lower bound on the cost of a Python gRPC server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.loads.workload import DOCUMENT
from benchmarks.systems.base import Running, System, wait_until_right
from benchmarks.systems.predictions import predict_call
from peers.environments import environment
from peers.programs import IMPORT_PATH, free_ports, running

ENVIRONMENT: Final = "grpcio"
ECHO_SERVER: Final = "benchmarks.systems.programs.echo_server"
SETTINGS: Final = {"PYTHONPATH": IMPORT_PATH}


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo(System):
    """One hop, no model."""

    def install(self) -> None:
        """Create the environment."""
        environment(ENVIRONMENT)

    @contextmanager
    def start(self, workplace: Path) -> Iterator[Running]:
        """Serve echoes."""
        (port,) = free_ports(1)
        command = (environment(ENVIRONMENT).python, "-m", ECHO_SERVER, str(port))
        with echoing(command, port, workplace / "echo.log") as it:
            yield it


@contextmanager
def echoing(command: Sequence[str | Path], port: int, log: Path) -> Iterator[Running]:
    """Run ``command``, which answers with the document on ``port``."""
    with running(command, log, SETTINGS) as program:
        call = predict_call(f"127.0.0.1:{port}", expected_response=DOCUMENT)
        wait_until_right(call, [program])
        yield Running(call, [program.process.pid])


ECHO: Final = Echo(name="echo", title="bare grpcio echo")
