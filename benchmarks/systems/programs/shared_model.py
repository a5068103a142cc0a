"""The model, loaded by this project's own code, for servers of others: the same tokenizer, network and arithmetic."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from predictor.intent_model import IntentModel
from predictor.loader import FileLimits, Loader
from serving.model_id import ModelId, parse_model_id
from serving.model_store import ModelStore
from serving.prediction import Prediction, Query


class SharedModel:
    """The model that ``BENCH_MODEL_ID`` names in the folder ``BENCH_MODELS``."""

    def __init__(self) -> None:
        self._id: ModelId = parse_model_id(os.environ["BENCH_MODEL_ID"])
        loader = Loader(ModelStore(Path(os.environ["BENCH_MODELS"])), FileLimits())
        self._model: IntentModel = loader.load(self._id, loader.fingerprint(self._id))

    def labels(self, documents: Sequence[str]) -> list[str]:
        """Return the label of each document, from one pass through the network."""
        outcomes = self._model.predict([Query(self._id, document) for document in documents])
        return [outcome.label if isinstance(outcome, Prediction) else str(outcome) for outcome in outcomes]
