"""Triton 2.51: the server inside the nvidia-pytriton wheel, its Python backend, dynamic batching of up to 64."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.environments import CannotInstall, Environment, environment
from benchmarks.programs import ROOT, running
from benchmarks.systems.base import MODEL_SETTINGS, Running, free_ports, wait_until_right
from benchmarks.systems.open_inference import MODEL_NAME, infer_call

_ENVIRONMENT: Final = "triton"
_MODEL: Final = Path(__file__).parent / "programs" / "triton_model.py"
_STUB: Final = "triton_python_backend_stub"
_CONFIGURATION: Final = f"""name: "{MODEL_NAME}"
backend: "python"
max_batch_size: 64
input [ {{ name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] }} ]
output [ {{ name: "LABEL" data_type: TYPE_STRING dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
"""


@dataclass(frozen=True, slots=True)
class Triton:
    """One hop from a server in C++ to a model in Python."""

    name: str = "triton"
    title: str = "Triton 2.51"
    hops: int = 1
    warm_up_seconds: float = 1.0

    def install(self) -> None:
        """Make its environment, with the stub of this Python beside Triton's Python backend."""
        if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
            raise CannotInstall("it needs a Python that has a shared library (libpython)")
        server = _server(environment(_ENVIRONMENT))
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = server / "python_backend_stubs" / version / _STUB
        if not stub.exists():
            raise CannotInstall(f"it has no Python backend for Python {version}")
        shutil.copy2(stub, server / "backends" / "python" / _STUB)

    @contextmanager
    def start(self, workplace: Path) -> Iterator[Running]:
        """Serve the model."""
        peer = environment(_ENVIRONMENT)
        server = _server(peer)
        version = workplace / "repository" / MODEL_NAME / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(_CONFIGURATION)
        shutil.copy2(_MODEL, version / "model.py")
        port, http_port, metrics_port = free_ports(3)
        ports = (f"--grpc-port={port}", f"--http-port={http_port}", f"--metrics-port={metrics_port}")
        addresses = ("--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1")
        folders = (f"--model-repository={version.parent.parent}", f"--backend-directory={server / 'backends'}")
        # The backend embeds Python: it must find the library, and the modules, of the one that made the environment.
        settings = {
            **MODEL_SETTINGS,
            "PYTHONPATH": f"{ROOT}:{peer.packages}",
            "PYTHONHOME": sys.base_prefix,
            "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
        }
        command = (server / "bin" / "tritonserver", *folders, *ports, *addresses)
        with running(command, workplace / "triton.log", settings) as program:
            call = infer_call(f"127.0.0.1:{port}", [1, 1])
            wait_until_right(call, [program])
            yield Running(call, [program.process.pid])


def _server(peer: Environment) -> Path:
    return peer.packages / "pytriton" / "tritonserver"


TRITON: Final = Triton()
