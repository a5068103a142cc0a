"""How TorchServe is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TorchServeOptions:
    """What a frontend asks of TorchServe, and how much of it."""

    most_models: int = 16
    """That this frontend keeps registered; each has workers, which are processes with PyTorch."""
    workers: int = 1
    """Processes of each model."""
    batch_size: int = 64
    """Most requests that TorchServe gives a worker at once."""
    batch_delay_milliseconds: int = 1
    """How long TorchServe waits for a batch to fill. At least 1: it takes 0 as 100."""
    registration_seconds: float = 120.0
    """Within which a model is registered and its worker is up."""
    response_seconds: int = 120
    """After which TorchServe starts a worker again that does not answer."""
    key_file: Path | None = None
    """TorchServe's key_file.json; ``None`` where its token authorization is disabled."""
