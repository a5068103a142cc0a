"""MLServer's runtime: documents in, labels out; MLServer itself combines requests into batches."""

from __future__ import annotations

from mlserver import MLModel  # type: ignore[import-not-found]  # installed in the environment of that peer
from mlserver.codecs import StringCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]

from peers.inside.shared_model import SharedModel


class IntentRuntime(MLModel):  # type: ignore[misc]  # its base class has no types here
    """Runtime that the model's settings name."""

    async def load(self) -> bool:
        """Load the model."""
        self._model = SharedModel()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return one label per document."""
        labels = self._model.labels(StringCodec.decode_input(payload.inputs[0]))
        output = StringCodec.encode_output("LABEL", labels)
        return InferenceResponse(model_name=self.name, outputs=[output])
