"""MLServer 1.7.1: inference in its own process, batches of up to 64, 1 ms of delay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.systems.base import MODEL_SETTINGS, Running, System, wait_until_right
from benchmarks.systems.open_inference import MODEL_NAME, infer_call
from peers.mlserver import mlserver, mlserver_environment


@dataclass(frozen=True, slots=True, kw_only=True)
class MlServer(System):
    """One hop."""

    def install(self) -> None:
        """Create the environment."""
        mlserver_environment()

    @contextmanager
    def start(self, workplace: Path) -> Iterator[Running]:
        """Serve the model."""
        model = {
            "implementation": "benchmarks.systems.programs.mlserver_runtime.IntentRuntime",
            "max_batch_size": 64,
            "max_batch_time": 0.001,
        }
        server = mlserver(workplace, {MODEL_NAME: model}, MODEL_SETTINGS)
        with server.running() as program:
            call = infer_call(server.address, [1, 1])
            wait_until_right(call, [program])
            yield Running(call, [program.process.pid])


MLSERVER: Final = MlServer(name="mlserver", title="MLServer 1.7")
