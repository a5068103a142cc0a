"""Bare HTTP/2 engine: upper limit of the library below our transport, and a minimal server of the real model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.results import Part
from benchmarks.systems.base import Running, System, wait_until_right
from benchmarks.systems.predictions import predict_call
from benchmarks.workload import DOCUMENT
from peers.programs import free_ports, running

_PROGRAMS: Final = "benchmarks.systems.programs"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnTheEngine(System):
    """A program on the engine and uvloop, in one process."""

    program: str
    """Module name of the program."""
    expected_response: str | None = None
    """Expected response; ``None``: that of the model."""
    parts: frozenset[Part] = frozenset({Part.UNARY, Part.CONNECTIONS})

    @contextmanager
    def start(self, workplace: Path) -> Iterator[Running]:
        """Start the program."""
        (port,) = free_ports(1)
        with running((sys.executable, "-m", self.program, str(port)), workplace / f"{self.name}.log") as program:
            call = predict_call(f"127.0.0.1:{port}", self.expected_response)
            wait_until_right(call, [program])
            yield Running(call, [program.process.pid])


ENGINE_ECHO: Final = OnTheEngine(
    name="engine-echo",
    title="bare ngh2 echo",
    program=f"{_PROGRAMS}.engine_echo",
    expected_response=DOCUMENT,
)
TURN: Final = OnTheEngine(name="turn", title="least program on ngh2 with the model", program=f"{_PROGRAMS}.turn_server")
