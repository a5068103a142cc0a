"""What every real server of others has in common: started again, it is where it was."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from peers.inside.shared_model import MODEL_ID_VARIABLE, MODELS_VARIABLE
from peers.programs import ROOT, Program, running

LOCALHOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that may be started, and behind its end started again on the same ports."""

    address: str
    """Where it answers with predictions over gRPC: ``host:port``."""
    command: tuple[str | Path, ...]
    log: Path
    folder: Path
    """Where it runs."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables of its environment."""

    def running(self) -> AbstractContextManager[Program]:
        """Start it, without waiting for it, and end it behind the block."""
        return running(self.command, self.log, self.settings, self.folder)


def our_code(models: Path, model_id: str) -> dict[str, str]:
    """Return the variables that let Python find this project, and ``inside/shared_model.py`` its model."""
    return {"PYTHONPATH": str(ROOT), MODELS_VARIABLE: str(models), MODEL_ID_VARIABLE: model_id}
