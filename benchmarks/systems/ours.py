"""This project, in the ways it can be started."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.calls import Call
from benchmarks.systems.base import Running, wait_until_right
from benchmarks.systems.predictions import batch_call, predict_call
from benchmarks.workload import MODELS
from peers.programs import Program, free_ports, running

Command = tuple[str | Path, ...]
Start = Callable[[ExitStack, Path, Path, int, int], list[Program]]
"""Starts the processes: for a folder of models, logs in a workplace, behind a port, with another between them."""


@dataclass(frozen=True, slots=True)
class Ours:
    """One way to start it."""

    name: str
    title: str
    hops: int
    start_programs: Start
    warm_up_seconds: float = 1.0

    def install(self) -> None:
        """Nothing: the harness runs in its environment."""

    def start(self, workplace: Path) -> AbstractContextManager[Running]:
        """Serve the sample models."""
        return self.serve(MODELS, workplace, predict_call)

    @contextmanager
    def serve(self, models: Path, workplace: Path, call_at: Callable[[str], Call]) -> Iterator[Running]:
        """Serve a folder of models, up once the call that ``call_at`` makes for an address is answered rightly."""
        with ExitStack() as stack:
            port, inner_port = free_ports(2)
            programs = self.start_programs(stack, models, workplace, port, inner_port)
            address = f"127.0.0.1:{port}"
            call = call_at(address)
            wait_until_right(call, programs)
            yield Running(call, [program.process.pid for program in programs], batch_call(address))


def _two_processes(frontend_transport: str, predictor_transport: str) -> Start:
    """Return how the frontend and the predictor are started as processes of their own."""

    def start(stack: ExitStack, models: Path, workplace: Path, port: int, predictor_port: int) -> list[Program]:
        common: Command = ("--model-dir", models, "--transport")
        predictor = (
            *(sys.executable, "-m", "predictor", *common, predictor_transport),
            *("--port", str(predictor_port)),
        )
        routes = f"intent-classification=predictor://127.0.0.1:{predictor_port}"
        frontend = (
            *(sys.executable, "-m", "frontend", *common, frontend_transport),
            *("--port", str(port), "--routes", routes),
        )
        return [
            stack.enter_context(running(command, workplace / f"{name}.log"))
            for name, command in (("predictor", predictor), ("frontend", frontend))
        ]

    return start


def _one_process(*flags: str) -> Start:
    """Return how ``intentctl up --single-process`` is started, with further ``flags``."""

    def start(stack: ExitStack, models: Path, workplace: Path, port: int, _: int) -> list[Program]:
        command: Command = (sys.executable, "-m", "intentctl", "up", "--single-process", "--model-dir", models)
        log = workplace / "one-process.log"
        return [stack.enter_context(running((*command, "--port", str(port), *flags), log))]

    return start


def _variants(transport: str) -> tuple[Ours, Ours]:
    flags = ("--transport", transport)
    return (
        Ours(
            f"ours-{transport}", f"Intent Serving, two processes, {transport}", 2, _two_processes(transport, transport)
        ),
        Ours(f"ours-one-process-{transport}", f"Intent Serving, one process, {transport}", 1, _one_process(*flags)),
    )


# As `intentctl up` starts them.
TWO_PROCESSES: Final = Ours("ours", "Intent Serving, two processes", 2, _two_processes("envoy", "grpcio"))
ONE_PROCESS: Final = Ours("ours-one-process", "Intent Serving, one process", 1, _one_process())
VARIANTS: Final = (*_variants("grpcio"), *_variants("envoy"))
"""The same with every process on one transport."""
