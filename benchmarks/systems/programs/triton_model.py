"""Triton's Python backend: documents in, labels out, one pass for all requests that Triton has gathered."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# The Python inside Triton ignores this variable at startup.
sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)

import numpy as np  # noqa: E402
import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # noqa: E402 - provided by Triton

from peers.inside.shared_model import SharedModel  # noqa: E402


class TritonPythonModel:
    """Class that Triton looks up by name."""

    def initialize(self, _arguments: Mapping[str, str]) -> None:
        """Load the model."""
        self._model = SharedModel()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return one response per request; each has one document per row."""
        rows = [triton.get_input_tensor_by_name(request, "TEXT").as_numpy().reshape(-1) for request in requests]
        labels = iter(self._model.labels([document.decode() for row in rows for document in row]))
        return [
            triton.InferenceResponse([triton.Tensor("LABEL", np.array([[next(labels)] for _ in row], dtype=object))])
            for row in rows
        ]
