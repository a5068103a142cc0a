"""Cost of Python clients: each calls the same server, which does as little work as possible."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from benchmarks.load import Latency
from benchmarks.results import Kind, LevelFigures, Plan, SystemFigures
from benchmarks.systems.base import Subject
from benchmarks.systems.engine import TURN
from peers.programs import ROOT

_PROGRAM: Final = "benchmarks.systems.programs.client_load"
_LEVELS: Final = frozenset({1, 64})
_MORE_SECONDS: Final = 60.0
_LINES_TOLD: Final = 3


class ClientFailed(Exception):
    """A client ended without figures; the message has the last lines of its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client(Subject):
    """A client that runs in its own process."""

    client: str
    """Name of the client in the client program."""
    kind: Kind = Kind.CLIENT
    levels: frozenset[int] | None = _LEVELS


class _Said(BaseModel):
    """Output of the client program."""

    seconds: float
    processor_seconds: float
    memory_mebibytes: float
    microseconds: list[int]


def measure_client(client: Client, plan: Plan) -> SystemFigures:
    """Return the figures of a round.

    Raises:
        ClientFailed: not every answer was right.
        ProgramEnded: the server ended by itself.
        WrongAnswer: the server never returned the right answer.
    """
    levels: dict[int, LevelFigures] = {}
    memory = 0.0
    with tempfile.TemporaryDirectory(prefix="intent-bench-") as folder, TURN.start(Path(folder)) as running:
        for in_flight in client.chosen(plan.levels):
            said = _run(client.client, running.predict.address, in_flight, plan.seconds)
            calls = len(said.microseconds)
            levels[in_flight] = LevelFigures(
                calls / said.seconds, Latency.of(said.microseconds), said.processor_seconds / calls * 1e6
            )
            memory = max(memory, said.memory_mebibytes)
    return SystemFigures(levels, memory)


def _run(client: str, address: str, in_flight: int, seconds: float) -> _Said:
    command = (sys.executable, "-m", _PROGRAM, client, address, str(in_flight), str(seconds))
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + _MORE_SECONDS, check=False
    )
    try:
        return _Said.model_validate_json(done.stdout)
    except ValidationError as error:
        lines = " / ".join(done.stderr.strip().splitlines()[-_LINES_TOLD:])
        raise ClientFailed(f"{client} ended with exit code {done.returncode}: {lines}") from error


INTENT_CLIENT: Final = Client(name="client", title="AsyncIntentClient", client="AsyncIntentClient")
GRPC_STUB: Final = Client(name="client-grpc-aio", title="stub of grpc.aio", client="grpc.aio")
