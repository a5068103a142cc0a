"""Files of a model that both engines accept, and the manifest that says for which engine the model is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from predictor.model.loader import FileLimits
from serving.domain.manifest import MAX_MANIFEST_BYTES, Manifest
from serving.volume.model_store import MANIFEST_FILE, VOCABULARY_FILE, WEIGHTS_FILE

LIMITS: Final = FileLimits()
MOST_BYTES: Final[Mapping[str, int]] = {
    MANIFEST_FILE: MAX_MANIFEST_BYTES,
    WEIGHTS_FILE: LIMITS.weights,
    VOCABULARY_FILE: LIMITS.vocabulary,
}
"""Largest size of each file that a predictor reads, in bytes, by name."""


def with_algorithm(manifest: Manifest, algorithm: str) -> Manifest:
    """Return the same manifest for another engine, without the sums of files, which publishing writes again."""
    document = json.loads(manifest.to_json()) | {"Algorithm": algorithm}
    document.pop("Files", None)
    return Manifest.parse(json.dumps(document).encode())
