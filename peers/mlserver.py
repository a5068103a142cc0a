"""MLServer 1.7.1, with inference in its own process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from peers.environments import Environment, environment
from peers.programs import free_ports
from peers.servers import LOCALHOST, Server

_ENVIRONMENT: Final = "mlserver"


def mlserver_environment() -> Environment:
    """Return the environment of MLServer.

    Raises:
        CannotInstall: MLServer cannot be installed on this machine.
    """
    return environment(_ENVIRONMENT)


def mlserver(
    folder: Path, models: Mapping[str, Mapping[str, Any]], settings: Mapping[str, str], *, host: str = LOCALHOST
) -> Server:
    """Return an MLServer on free ports.

    Args:
        folder: folder for the server's own files.
        models: settings of each model, under MLServer's names, by the name of the model.
        settings: environment variables of the server, which its runtimes read.
        host: address that the server listens on.

    Raises:
        CannotInstall: MLServer cannot be installed on this machine.
    """
    peer = mlserver_environment()
    for name, model in models.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "model-settings.json").write_text(json.dumps({"name": name, **model}))
    port, http_port, metrics_port = free_ports(3, host)
    server = {
        "host": host,
        "http_port": http_port,
        "grpc_port": port,
        "metrics_port": metrics_port,
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(server))
    command = (peer.program("mlserver"), "start", folder)
    return Server(f"{host}:{port}", command, folder / "mlserver.log", folder, settings)
