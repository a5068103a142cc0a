"""TorchServe 0.12, with its server in Java and its workers in Python."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from peers.environments import CannotInstall, Environment, environment
from peers.programs import Program, free_ports, running
from peers.servers import LOCALHOST, Server

_ENVIRONMENT: Final = "torchserve"
_HTTP: Final = ("inference", "management", "metrics")


@dataclass(frozen=True, slots=True)
class TorchServe(Server):
    """A TorchServe server with its own model store."""

    management: str = ""
    """Address for the registration of models over gRPC, ``host:port``."""

    @property
    def keys(self) -> Path:
        """Path of the file to which TorchServe writes its keys of token authorization at each start."""
        return self.folder / "key_file.json"

    @contextmanager
    def running(self) -> Iterator[Program]:
        """Start the server, without waiting for it, and end it after the block."""
        # Each server needs its own temporary folder: TorchServe refuses to start if it finds the mark of another server
        # there, and all servers give the sockets of their workers the same names.
        with (
            tempfile.TemporaryDirectory(prefix="torchserve-", ignore_cleanup_errors=True) as own,
            running(self.command, self.log, {**self.settings, "TMPDIR": own, "TEMP": own}, self.folder) as program,
        ):
            yield program


def torchserve_environment() -> Environment:
    """Return the environment of TorchServe.

    Raises:
        CannotInstall: TorchServe cannot be installed on this machine.
    """
    _java()
    return environment(_ENVIRONMENT)


def torchserve(
    folder: Path,
    store: Path,
    *flags: str | Path,
    configuration: Mapping[str, object] | None = None,
    token_authorization: bool = False,
    settings: Mapping[str, str] | None = None,
    host: str = LOCALHOST,
) -> TorchServe:
    """Return a TorchServe on free ports.

    Args:
        folder: folder for the server's own files.
        store: model store of the server.
        flags: further flags of the command line.
        configuration: further lines of the configuration.
        token_authorization: whether callers need keys.
        settings: environment variables of the server, which its workers inherit.
        host: address that the server listens on.

    Raises:
        CannotInstall: TorchServe cannot be installed on this machine.
    """
    peer = torchserve_environment()
    folder.mkdir(parents=True, exist_ok=True)
    inference, management, *http = free_ports(2 + len(_HTTP), host)
    lines = {
        "grpc_inference_address": host,
        "grpc_inference_port": inference,
        "grpc_management_address": host,
        "grpc_management_port": management,
        **{f"{name}_address": f"http://{host}:{port}" for name, port in zip(_HTTP, http, strict=True)},
        **(configuration or {}),
    }
    (folder / "config.properties").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    command = (
        *(peer.program("torchserve"), "--start", "--foreground", "--ncs"),
        *("--model-store", store, "--ts-config", folder / "config.properties"),
        *(() if token_authorization else ("--disable-token-auth",)),
        *flags,
    )
    return TorchServe(
        address=f"{host}:{inference}",
        management=f"{host}:{management}",
        command=command,
        log=folder / "torchserve.log",
        folder=folder,
        settings={
            **(settings or {}),
            "LOG_LOCATION": str(folder / "logs"),
            "METRICS_LOCATION": str(folder / "logs"),
            # TorchServe looks for its own Python by name.
            "PATH": f"{peer.program('python').parent}:{_java().parent}:/usr/bin:/bin",
        },
    )


def _java() -> Path:
    java = shutil.which("java")
    if java is None:
        raise CannotInstall("TorchServe needs a Java 17 runtime; on Debian: apt-get install openjdk-17-jre-headless")
    return Path(java)
