"""The sample models, without other models that a user has put beside them into ``models/``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from tests.conftest import ROOT

SAMPLES: Final = ("banking77", "clinc150", "clinc150-banking", "clinc150-kitchen", "clinc150-travel")
"""Ids of the sample models."""


def copy_samples(volume: Path) -> Path:
    """Copy the sample models into ``volume``, a folder that this makes, and return it."""
    volume.mkdir(parents=True)
    for model_id in SAMPLES:
        shutil.copytree(ROOT / "models" / model_id, volume / model_id)
    return volume
