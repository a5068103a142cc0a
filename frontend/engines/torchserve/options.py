"""Settings for the use of TorchServe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TorchServeOptions:
    """Settings of the models that a frontend registers at TorchServe, and their limits."""

    most_models: int = 16
    """Maximum number of models that this frontend keeps registered; each has worker processes with PyTorch."""
    workers: int = 1
    """Number of worker processes of each model."""
    batch_size: int = 64
    """Maximum number of requests that TorchServe gives a worker at once."""
    batch_delay_milliseconds: int = 1
    """Time that TorchServe waits for a batch to fill, in milliseconds. At least 1: TorchServe takes 0 as 100."""
    registration_seconds: float = 120.0
    """Time limit for a model to be registered and its worker to be up, in seconds."""
    response_seconds: int = 120
    """Time after which TorchServe restarts a worker that does not answer, in seconds."""
    key_file: Path | None = None
    """Path of TorchServe's key_file.json; ``None`` if its token authorization is disabled."""
