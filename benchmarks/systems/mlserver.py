"""MLServer 1.7.1: its inference in its own process, batches of up to 64, 1 ms of delay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.environments import environment
from benchmarks.programs import running
from benchmarks.systems.base import MODEL_SETTINGS, Running, free_ports, wait_until_right
from benchmarks.systems.open_inference import MODEL_NAME, infer_call

_ENVIRONMENT: Final = "mlserver"


@dataclass(frozen=True, slots=True)
class MlServer:
    """One hop."""

    name: str = "mlserver"
    title: str = "MLServer 1.7"
    hops: int = 1
    warm_up_seconds: float = 1.0

    def install(self) -> None:
        """Make its environment."""
        environment(_ENVIRONMENT)

    @contextmanager
    def start(self, workplace: Path) -> Iterator[Running]:
        """Serve the model."""
        port, http_port, metrics_port = free_ports(3)
        server = {
            "host": "127.0.0.1",
            "http_port": http_port,
            "grpc_port": port,
            "metrics_port": metrics_port,
            "parallel_workers": 0,
            "debug": False,
        }
        model = {
            "name": MODEL_NAME,
            "implementation": "benchmarks.systems.programs.mlserver_runtime.IntentRuntime",
            "max_batch_size": 64,
            "max_batch_time": 0.001,
        }
        (workplace / "settings.json").write_text(json.dumps(server))
        (workplace / "model-settings.json").write_text(json.dumps(model))
        command = (environment(_ENVIRONMENT).program("mlserver"), "start", workplace)
        with running(command, workplace / "mlserver.log", MODEL_SETTINGS, workplace) as program:
            call = infer_call(f"127.0.0.1:{port}", [1, 1])
            wait_until_right(call, [program])
            yield Running(call, [program.process.pid])


MLSERVER: Final = MlServer()
