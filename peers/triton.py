"""Triton 2.51: the server in the nvidia-pytriton wheel, with its Python backend."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from peers.environments import CannotInstall, Environment, environment
from peers.programs import free_ports
from peers.servers import LOCALHOST, Server

ENVIRONMENT: Final = "triton"

_STUB: Final = "triton_python_backend_stub"


def triton_environment() -> Environment:
    """Return the environment of Triton, with the stub of this Python version beside Triton's Python backend.

    Raises:
        CannotInstall: Triton cannot be installed on this machine.
    """
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        raise CannotInstall("Triton needs a Python that has a shared library (libpython)")
    peer = environment(ENVIRONMENT)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = _server(peer) / "python_backend_stubs" / version / _STUB
    if not stub.exists():
        raise CannotInstall(f"Triton has no Python backend for Python {version}")
    place = _server(peer) / "backends" / "python" / _STUB
    if not place.exists() or place.read_bytes() != stub.read_bytes():
        shutil.copy2(stub, place)
    return peer


def triton(
    folder: Path, models: Mapping[str, tuple[str, Path]], settings: Mapping[str, str], *, host: str = LOCALHOST
) -> Server:
    """Return a Triton on free ports.

    Args:
        folder: folder for the server's own files.
        models: configuration of each model in Triton's terms, and its Python file, by the name of the model.
        settings: environment variables of the server, which its models read; at least :func:`~peers.servers.our_code`.
        host: address that the server listens on.

    Raises:
        CannotInstall: Triton cannot be installed on this machine.
    """
    peer = triton_environment()
    repository = folder / "repository"
    for name, (configuration, program) in models.items():
        version = repository / name / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(configuration)
        shutil.copy2(program, version / "model.py")
    port, http_port, metrics_port = free_ports(3, host)
    server = _server(peer)
    command: tuple[str | Path, ...] = (
        server / "bin" / "tritonserver",
        *(f"--model-repository={repository}", f"--backend-directory={server / 'backends'}"),
        *(f"--grpc-port={port}", f"--http-port={http_port}", f"--metrics-port={metrics_port}"),
        *(f"--{name}-address={host}" for name in ("http", "grpc", "metrics")),
    )
    # The backend embeds Python, and must find the library and the modules of the Python that created the environment.
    embedding = {
        "PYTHONPATH": f"{settings['PYTHONPATH']}:{peer.packages}",
        "PYTHONHOME": sys.base_prefix,
        "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
    }
    return Server(f"{host}:{port}", command, folder / "triton.log", folder, {**settings, **embedding})


def _server(peer: Environment) -> Path:
    return peer.packages / "pytriton" / "tritonserver"
