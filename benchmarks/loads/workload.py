"""Workload of every system: one model, one document, one right answer."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from peers.programs import ROOT

MODELS: Final[Path] = ROOT / "models"
"""Folder of the sample models."""
MODEL_ID: Final = "clinc150"
"""Model with 5,292 tokens, 64 dimensions and 151 classes."""
DOCUMENT: Final = "make a 10 minute timer"
LABEL: Final = "timer"
BATCH_SIZE: Final = 256
"""Number of documents in a batch call."""
