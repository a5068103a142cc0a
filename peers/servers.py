"""Common part of all third-party servers: a restarted server keeps its address."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from peers.inside.shared_model import MODEL_ID_VARIABLE, MODELS_VARIABLE
from peers.programs import IMPORT_PATH, Program, running

LOCALHOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that can be started, and restarted on the same ports after it has ended."""

    address: str
    """Address for predictions over gRPC, ``host:port``."""
    command: tuple[str | Path, ...]
    log: Path
    folder: Path
    """Working directory of the server."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the server."""

    def running(self) -> AbstractContextManager[Program]:
        """Start the server, without waiting for it, and end it after the block."""
        return running(self.command, self.log, self.settings, self.folder)


def our_code(models: Path, model_id: str) -> dict[str, str]:
    """Return the environment variables by which Python finds this project, and ``inside/shared_model.py`` its model."""
    return {"PYTHONPATH": IMPORT_PATH, MODELS_VARIABLE: str(models), MODEL_ID_VARIABLE: model_id}
