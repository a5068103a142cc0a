"""Model for Triton's Python backend: turns documents into labels or logits, one pass for all requests of a batch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# Triton's embedded Python ignores this variable at startup.
sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)

import numpy as np  # noqa: E402
import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # noqa: E402 - Triton brings it

from peers.inside.shared_model import SharedModel  # noqa: E402


class TritonPythonModel:
    """Class that Triton looks for, which answers with the outputs that the model's configuration names."""

    def initialize(self, arguments: Mapping[str, str]) -> None:
        """Load the model."""
        self._model = SharedModel()
        self._outputs = {output["name"] for output in json.loads(arguments["model_config"])["output"]}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return one response per request; each request has one document per row."""
        rows = [triton.get_input_tensor_by_name(request, "document").as_numpy().reshape(-1) for request in requests]
        documents = [document.decode() for row in rows for document in row]
        outputs = self._of_all(documents)
        ends = np.cumsum([len(row) for row in rows])[:-1]
        split = {name: np.split(values, ends) for name, values in outputs.items()}
        return [
            triton.InferenceResponse([triton.Tensor(name, parts[number]) for name, parts in split.items()])
            for number in range(len(rows))
        ]

    def _of_all(self, documents: Sequence[str]) -> dict[str, Any]:
        """Return the outputs by name, each with one row per document."""
        if "logits" in self._outputs:
            return {"logits": self._model.logits(documents)}
        # Return the best label, however low its score, because the frontend compares it with the threshold.
        predictions = self._model.predictions(documents, threshold=0.0)
        labels = np.array([[prediction.label] for prediction in predictions], dtype=object)
        scores = np.array([[prediction.score] for prediction in predictions], dtype=np.float32)
        return {"label": labels, "score": scores}
