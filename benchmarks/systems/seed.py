"""The book's way of serving, re-created: two servers with thread pools, the model loaded for each request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.systems.base import MODEL_SETTINGS, Running, System, wait_until_right
from benchmarks.systems.predictions import predict_call
from peers.environments import environment
from peers.programs import free_ports, running

_ENVIRONMENT: Final = "seed"
_SERVER: Final = "benchmarks.systems.programs.seed_server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed(System):
    """Two hops, and the model is loaded in each request."""

    def install(self) -> None:
        """Create the environment."""
        environment(_ENVIRONMENT)

    @contextmanager
    def start(self, workplace: Path) -> Iterator[Running]:
        """Serve the model."""
        server = (environment(_ENVIRONMENT).python, "-m", _SERVER)
        port, behind = map(str, free_ports(2))
        with (
            running((*server, "predictor", behind), workplace / "predictor.log", MODEL_SETTINGS) as back,
            running((*server, "frontend", port, behind), workplace / "frontend.log", MODEL_SETTINGS) as front,
        ):
            call = predict_call(f"127.0.0.1:{port}")
            wait_until_right(call, [back, front])
            yield Running(call, [front.process.pid, back.process.pid])


SEED: Final = Seed(name="seed", title="the book's way, re-created", hops=2)
