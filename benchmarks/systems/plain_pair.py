"""Plain grpcio pair: an asyncio server that calls an echo through an asyncio stub, for the cost of a hop alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.systems.base import Running, System, wait_until_right
from benchmarks.systems.echo import ECHO_SERVER, ENVIRONMENT, SETTINGS
from benchmarks.systems.predictions import predict_call
from benchmarks.workload import DOCUMENT
from peers.environments import environment
from peers.programs import free_ports, running

_FORWARDING_SERVER: Final = "benchmarks.systems.programs.forwarding_server"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainPair(System):
    """Two hops, no model."""

    def install(self) -> None:
        """Create the environment."""
        environment(ENVIRONMENT)

    @contextmanager
    def start(self, workplace: Path) -> Iterator[Running]:
        """Serve echoes through a server in between."""
        python = environment(ENVIRONMENT).python
        port, behind = map(str, free_ports(2))
        with (
            running((python, "-m", ECHO_SERVER, behind), workplace / "behind.log", SETTINGS) as back,
            running((python, "-m", _FORWARDING_SERVER, port, behind), workplace / "front.log", SETTINGS) as front,
        ):
            call = predict_call(f"127.0.0.1:{port}", expected_response=DOCUMENT)
            wait_until_right(call, [back, front])
            yield Running(call, [front.process.pid, back.process.pid])


PLAIN_PAIR: Final = PlainPair(name="plain-pair", title="plain grpcio pair", hops=2)
