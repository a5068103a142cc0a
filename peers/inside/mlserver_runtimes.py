"""MLServer runtimes that turn documents into labels or logits; MLServer itself combines requests into one."""

from __future__ import annotations

import asyncio
from typing import Final

import numpy as np
from mlserver import MLModel  # type: ignore[import-not-found]  # in the environment of that peer
from mlserver.codecs import NumpyCodec, StringCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]

from peers.inside.shared_model import SharedModel

_SLOW_SECONDS: Final = 6.0


class LabelRuntime(MLModel):  # type: ignore[misc]  # its base class has no types here
    """Runtime that answers with ``label`` (BYTES) and ``score`` (FP32)."""

    async def load(self) -> bool:
        """Load the model."""
        self._model = SharedModel()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return a label and a score for each document."""
        # Return the best label, however low its score, because the frontend compares it with the threshold.
        predictions = self._model.predictions(StringCodec.decode_input(payload.inputs[0]), threshold=0.0)
        labels = [prediction.label for prediction in predictions]
        scores = np.array([[prediction.score] for prediction in predictions], dtype=np.float32)
        outputs = [StringCodec.encode_output("label", labels), NumpyCodec.encode_output("score", scores)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


class LogitsRuntime(MLModel):  # type: ignore[misc]
    """Runtime that answers with ``logits`` (FP32), whose classes only the manifest names."""

    async def load(self) -> bool:
        """Load the model."""
        self._model = SharedModel()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return a row of logits for each document."""
        logits = self._model.logits(StringCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("logits", logits)])


class SlowRuntime(MLModel):  # type: ignore[misc]
    """Runtime that answers slowly, with the number of calls so far."""

    async def load(self) -> bool:
        """Start the count of calls at zero."""
        self._asked = 0
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the number of calls, as text, for each document."""
        documents = StringCodec.decode_input(payload.inputs[0])
        self._asked += 1
        labels = [str(self._asked)] * len(documents)
        await asyncio.sleep(_SLOW_SECONDS)
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("label", labels)])
