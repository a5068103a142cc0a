"""The predictor's engine as a backend of the frontend's router, without a wire between them."""

from __future__ import annotations

from collections.abc import Sequence

from predictor.engine import InferenceEngine
from serving.call import Call
from serving.model_id import ModelId
from serving.prediction import Outcome, Prediction, Query


class InProcessBackend:
    """A :class:`~frontend.backends.backend.Backend` that is the engine itself.

    Args:
        engine: answers; closed with the backend.
        wanted: models loaded before the first question.
    """

    def __init__(self, engine: InferenceEngine, wanted: Sequence[ModelId]) -> None:
        self._engine = engine
        self._wanted = wanted

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the model's answer to one query. Raises ServingError."""
        return await self._engine.predict(query, call.deadline)

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        """Return the outcome of each query, in order. Raises InvalidRequest where the batch is too large."""
        return await self._engine.predict_batch(queries, call.deadline)

    async def predict_ready(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome | None]:
        """Return the outcome of each query that can be answered at once, ``None`` for those to be asked alone."""
        return await self._engine.predict_ready(queries, call.deadline)

    async def unload(self, model_id: ModelId, call: Call) -> None:
        """Let go of the model. Raises ModelPinned."""
        del call
        self._engine.unload(model_id)

    async def wait_until_ready(self) -> None:
        """Return once the wanted models are in memory."""
        await self._engine.preload(self._wanted)

    async def close(self) -> None:
        """Close the engine."""
        await self._engine.close()
