"""One of our models for third-party servers, loaded by this project's own code: the same tokenizer and arithmetic."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from predictor.model.files.tensors import Array
from predictor.model.intent_model import IntentModel
from predictor.model.loader import FileLimits, Loader
from serving.domain.model_id import ModelId, parse_model_id
from serving.domain.prediction import Prediction, Query
from serving.volume.model_store import ModelStore

MODELS_VARIABLE: Final = "PEERS_MODELS"
MODEL_ID_VARIABLE: Final = "PEERS_MODEL_ID"


class SharedModel:
    """The model that ``PEERS_MODEL_ID`` names in the folder ``PEERS_MODELS``."""

    def __init__(self) -> None:
        self._id: ModelId = parse_model_id(os.environ[MODEL_ID_VARIABLE])
        loader = Loader(ModelStore(Path(os.environ[MODELS_VARIABLE])), FileLimits())
        self._model: IntentModel = loader.load(self._id, loader.fingerprint(self._id))

    def predictions(self, documents: Sequence[str], threshold: float | None = None) -> list[Prediction]:
        """Return the answer to each document, from one pass through the network.

        Args:
            documents: texts to classify.
            threshold: least score of an answer; ``None`` leaves it to the model's manifest.

        Raises:
            ServingError: a document has no answer; the error says why.
        """
        predictions = []
        for outcome in self._model.predict([Query(self._id, document, 0, threshold) for document in documents]):
            if not isinstance(outcome, Prediction):
                raise outcome
            predictions.append(outcome)
        return predictions

    def labels(self, documents: Sequence[str]) -> list[str]:
        """Return the label of each document."""
        return [prediction.label for prediction in self.predictions(documents)]

    def logits(self, documents: Sequence[str]) -> Array:
        """Return the logits of each document: float32, shape [documents, classes]."""
        return self._model.logits(documents)
