"""What every system is asked: one model, one question, one right answer."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from peers.programs import ROOT

MODELS: Final[Path] = ROOT / "models"
"""The sample models."""
MODEL_ID: Final = "clinc150"
"""5,303 tokens, 64 dimensions, 151 classes."""
DOCUMENT: Final = "make a 10 minute timer"
LABEL: Final = "timer"
BATCH_SIZE: Final = 256
"""Documents in a batch call."""
