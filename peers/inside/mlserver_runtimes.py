"""MLServer's runtimes: documents in, labels or logits out; MLServer itself gathers requests into one."""

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
    """Answers with ``label`` (BYTES) and ``score`` (FP32)."""

    async def load(self) -> bool:
        """Load the model."""
        self._model = SharedModel()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return a label and a score a document."""
        # The best label, however low its score: the frontend holds it against the threshold.
        predictions = self._model.predictions(StringCodec.decode_input(payload.inputs[0]), threshold=0.0)
        labels = [prediction.label for prediction in predictions]
        scores = np.array([[prediction.score] for prediction in predictions], dtype=np.float32)
        outputs = [StringCodec.encode_output("label", labels), NumpyCodec.encode_output("score", scores)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


class LogitsRuntime(MLModel):  # type: ignore[misc]
    """Answers with ``logits`` (FP32), whose classes only the manifest knows."""

    async def load(self) -> bool:
        """Load the model."""
        self._model = SharedModel()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return a row of logits a document."""
        logits = self._model.logits(StringCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("logits", logits)])


class SlowRuntime(MLModel):  # type: ignore[misc]
    """Takes its time, and answers with how often it was asked."""

    async def load(self) -> bool:
        """Count from zero."""
        self._asked = 0
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return a number, as text, a document."""
        documents = StringCodec.decode_input(payload.inputs[0])
        self._asked += 1
        labels = [str(self._asked)] * len(documents)
        await asyncio.sleep(_SLOW_SECONDS)
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("label", labels)])
