"""TorchServe 0.12: one worker, batches of up to 64, 1 ms of delay."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from benchmarks.calls import Call
from benchmarks.environments import CannotInstall, environment
from benchmarks.programs import running
from benchmarks.systems.base import MODEL_SETTINGS, Running, check_label, free_ports, wait_until_right
from benchmarks.workload import DOCUMENT

_ENVIRONMENT: Final = "torchserve"
_METHOD: Final = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
_HANDLER: Final = Path(__file__).parent / "programs" / "torchserve_handler.py"
_MODEL: Final = "intent"
_START_SECONDS: Final = 120.0
_BATCHING: Final = {
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": 64,
    "maxBatchDelay": 1,
    "responseTimeout": 120,
    "marName": f"{_MODEL}.mar",
    "defaultVersion": True,
}

pb: Final = grpc.protos("benchmarks/systems/protos/torchserve.proto")


@dataclass(frozen=True, slots=True)
class TorchServe:
    """One hop from a frontend in Java to a worker in Python."""

    name: str = "torchserve"
    title: str = "TorchServe 0.12"
    hops: int = 1
    # Java compiles what it runs often; before that it is several times as slow.
    warm_up_seconds: float = 15.0

    def install(self) -> None:
        """Make its environment."""
        if shutil.which("java") is None:
            raise CannotInstall("it needs a Java 17 runtime; on Debian: apt-get install openjdk-17-jre-headless")
        environment(_ENVIRONMENT)

    @contextmanager
    def start(self, workplace: Path) -> Iterator[Running]:
        """Serve the model."""
        peer = environment(_ENVIRONMENT)
        archiver = (peer.program("torch-model-archiver"), "--model-name", _MODEL, "--version", "1.0", "--force")
        subprocess.run(
            [*archiver, "--handler", _HANDLER, "--export-path", workplace],
            check=True,
            capture_output=True,
            cwd=workplace,
        )
        ports = free_ports(5)
        configuration = workplace / "config.properties"
        configuration.write_text(_configuration(ports))
        command = (
            *(peer.program("torchserve"), "--start", "--foreground", "--ncs", "--disable-token-auth"),
            *("--model-store", workplace, "--models", f"{_MODEL}={_MODEL}.mar", "--ts-config", configuration),
        )
        settings = {**MODEL_SETTINGS, "LOG_LOCATION": str(workplace / "logs"), "METRICS_LOCATION": str(workplace)}
        # It looks for its own Python by name.
        settings["PATH"] = f"{peer.program('python').parent}:{_java_folder()}:/usr/bin:/bin"
        with running(command, workplace / "torchserve.log", settings, workplace) as program:
            request = pb.PredictionsRequest(model_name=_MODEL, input={"data": DOCUMENT.encode()})
            call = Call(f"127.0.0.1:{ports[0]}", _METHOD, request.SerializeToString(), _verify)
            wait_until_right(call, [program], _START_SECONDS)
            yield Running(call, [program.process.pid])


def _verify(answer: bytes) -> None:
    check_label(pb.PredictionResponse.FromString(answer).prediction.decode())


def _configuration(ports: Sequence[int]) -> str:
    return f"""grpc_inference_port={ports[0]}
grpc_management_port={ports[1]}
inference_address=http://127.0.0.1:{ports[2]}
management_address=http://127.0.0.1:{ports[3]}
metrics_address=http://127.0.0.1:{ports[4]}
job_queue_size=1000
models={json.dumps({_MODEL: {"1.0": _BATCHING}})}
"""


def _java_folder() -> Path:
    java = shutil.which("java")
    assert java is not None
    return Path(java).parent


TORCHSERVE: Final = TorchServe()
