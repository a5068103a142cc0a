"""Check of a model's folder by the predictor's own loader, for programs that are about to publish the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from predictor.model.loader import FileLimits, Loader
from serving.domain.model_id import ModelId
from serving.volume.model_store import ModelStore

INTENT: Final = "intent-classification"
"""Algorithm of models that the predictor serves."""
INTENT_AT_TORCHSERVE: Final = "intent-classification-torch"
"""Algorithm of models with the same files that TorchServe serves."""


def check_servable(folder: Path) -> None:
    """Check that a predictor with its default settings can load the model in ``folder``.

    Models for other engines are not loaded: their files are those of the engine.

    Raises:
        ModelUnusable: the predictor could not load the model; the message says why.
        ServingError: as :meth:`~predictor.model.loader.Loader.load` raises.
    """
    store = ModelStore(folder.parent)
    model_id = ModelId(folder.name)
    manifest = store.read_manifest(model_id)
    if manifest.algorithm not in (INTENT, INTENT_AT_TORCHSERVE) or manifest.is_elsewhere:
        return
    loader = Loader(store, FileLimits())
    loader.load(model_id, loader.fingerprint(model_id))
