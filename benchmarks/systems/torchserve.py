"""TorchServe 0.12: one worker, batches of up to 64, 1 ms of delay."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from benchmarks.calls import Call
from benchmarks.systems.base import MODEL_SETTINGS, Running, System, check_label, wait_until_right
from benchmarks.workload import DOCUMENT
from peers.torchserve import torchserve, torchserve_environment

METHOD: Final = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
_HANDLER: Final = Path(__file__).parent / "programs" / "torchserve_handler.py"
_MODEL: Final = "intent"
START_SECONDS: Final = 120.0
BATCHING: Final = {
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": 64,
    "maxBatchDelay": 1,
    "responseTimeout": 120,
    "marName": f"{_MODEL}.mar",
    "defaultVersion": True,
}

pb: Final = grpc.protos("benchmarks/systems/protos/torchserve.proto")


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchServe(System):
    """One hop from a frontend in Java to a worker in Python."""

    # Java compiles code that runs often; before that, it is several times slower.
    warm_up_seconds: float = 15.0

    def install(self) -> None:
        """Create the environment."""
        torchserve_environment()

    @contextmanager
    def start(self, workplace: Path) -> Iterator[Running]:
        """Serve the model."""
        peer = torchserve_environment()
        archiver = (peer.program("torch-model-archiver"), "--model-name", _MODEL, "--version", "1.0", "--force")
        subprocess.run(
            [*archiver, "--handler", _HANDLER, "--export-path", workplace],
            check=True,
            capture_output=True,
            cwd=workplace,
        )
        server = torchserve(
            workplace,
            workplace,
            *("--models", f"{_MODEL}={_MODEL}.mar"),
            configuration={"job_queue_size": 1000, "models": json.dumps({_MODEL: {"1.0": BATCHING}})},
            settings=MODEL_SETTINGS,
        )
        with server.running() as program:
            request = pb.PredictionsRequest(model_name=_MODEL, input={"data": DOCUMENT.encode()})
            call = Call(server.address, METHOD, request.SerializeToString(), _verify)
            wait_until_right(call, [program], START_SECONDS)
            yield Running(call, [program.process.pid])


def _verify(answer: bytes) -> None:
    check_label(pb.PredictionResponse.FromString(answer).prediction.decode())


TORCHSERVE: Final = TorchServe(name="torchserve", title="TorchServe 0.12")
