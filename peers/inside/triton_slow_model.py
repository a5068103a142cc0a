"""Model for Triton's Python backend that answers slowly."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # Triton brings it

_SLOW_SECONDS: Final = 6.0


class TritonPythonModel:
    """Class that Triton looks for."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return one label per request."""
        time.sleep(_SLOW_SECONDS)
        label = triton.Tensor("label", np.array([["late"]], dtype=object))
        return [triton.InferenceResponse([label]) for _ in requests]
