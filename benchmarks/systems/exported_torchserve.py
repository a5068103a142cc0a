"""TorchServe 0.12 with our archive from ``intentctl export``: called directly, and by our frontend."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.calls import Call
from benchmarks.results import Kind
from benchmarks.systems.base import Running, System, check_label, wait_until_right
from benchmarks.systems.predictions import predict_call
from benchmarks.systems.torchserve import BATCHING, METHOD, START_SECONDS, pb
from benchmarks.workload import DOCUMENT, LABEL, MODEL_ID, MODELS
from peers.programs import ROOT, free_ports, running
from peers.torchserve import TorchServe, torchserve, torchserve_environment

_MODEL: Final = f"{MODEL_ID}-torchserve"
_ALGORITHM: Final = "intent-classification-torch"
# Java compiles code that runs often, and it sees few batches: behind the frontend, warm-up takes most of a minute.
_WARM_UP_SECONDS: Final = 45.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedDirectly(System):
    """One hop: TorchServe alone."""

    warm_up_seconds: float = _WARM_UP_SECONDS

    def install(self) -> None:
        """Create the environment."""
        torchserve_environment()

    @contextmanager
    def start(self, workplace: Path) -> Iterator[Running]:
        """Serve the model."""
        archive = _exported(workplace)
        configuration = {
            "job_queue_size": 1000,
            "models": json.dumps({_MODEL: {"1.0": BATCHING | {"marName": archive.name}}}),
        }
        flags = ("--models", f"{_MODEL}={archive.name}")
        server = torchserve(workplace, archive.parent, *flags, configuration=configuration)
        with server.running() as program:
            request = pb.PredictionsRequest(model_name=_MODEL, input={"data": DOCUMENT.encode()})
            call = Call(server.address, METHOD, request.SerializeToString(), _verify)
            wait_until_right(call, [program], START_SECONDS)
            yield Running(call, [program.process.pid])


@dataclass(frozen=True, slots=True, kw_only=True)
class BehindOurFrontend(System):
    """Two hops: our frontend, then TorchServe."""

    transport: str
    """Transport of the frontend."""
    warm_up_seconds: float = _WARM_UP_SECONDS

    def install(self) -> None:
        """Create TorchServe's environment."""
        torchserve_environment()

    def start(self, workplace: Path) -> AbstractContextManager[Running]:
        """Serve the model."""
        archive = _exported(workplace)
        configuration = {"job_queue_size": 1000, "enable_model_api": "true"}
        return self._serve(torchserve(workplace, archive.parent, configuration=configuration), workplace)

    @contextmanager
    def _serve(self, server: TorchServe, workplace: Path) -> Iterator[Running]:
        (port,) = free_ports(1)
        routes = f"{_ALGORITHM}=torchserve://{server.address}?management={server.management}"
        frontend = (
            *(sys.executable, "-m", "frontend", "--model-dir", workplace / "models", "--transport", self.transport),
            *("--port", str(port), "--routes", routes),
        )
        with server.running() as engine, running(frontend, workplace / "frontend.log") as program:
            call = predict_call(f"127.0.0.1:{port}", model_id=_MODEL)
            wait_until_right(call, [engine, program], START_SECONDS)
            yield Running(call, [program.process.pid, engine.process.pid])


def _exported(workplace: Path) -> Path:
    """Return an archive of the model in a new model store; the model folder beside the store routes to the archive."""
    models, store = workplace / "models", workplace / "store"
    shutil.copytree(MODELS / MODEL_ID, models / MODEL_ID)
    store.mkdir()
    export = (
        *(sys.executable, "-m", "intentctl", "export", "--torchserve", MODEL_ID),
        *("--publish-as", _MODEL, "--model-dir", models, "--model-store", store),
    )
    subprocess.run([str(part) for part in export], check=True, capture_output=True, cwd=ROOT)
    return store / f"model-{_MODEL}.mar"


def _verify(answer: bytes) -> None:
    check_label(json.loads(pb.PredictionResponse.FromString(answer).prediction)["result"], LABEL)


TORCHSERVE_EXPORTED: Final = AskedDirectly(name="torchserve-exported", title="TorchServe 0.12, archive of ours")


def before_torchserve(transport: str) -> BehindOurFrontend:
    """Return our frontend, on ``transport``, in front of the same TorchServe."""
    title = "Intent Serving before TorchServe 0.12"
    return BehindOurFrontend(name="before-torchserve", title=title, kind=Kind.OURS, hops=2, transport=transport)
