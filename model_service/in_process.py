"""The predictor's engine as a backend of the frontend's router, without a wire between them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from frontend.engines.backend import Removed
from frontend.engines.forgetting import forget_each
from intent_serving_client.fields import from_fields
from predictor.inference.engine import InferenceEngine
from predictor.inference.traffic_registry import CountedModel
from predictor.rpc.servicer import REPLICA
from serving.call.call import Call
from serving.domain.model_id import ModelId
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.residency import ModelResidency, ModelStatistics


class InProcessBackend:
    """A :class:`~frontend.engines.backend.Backend` that is the engine itself.

    Args:
        engine: engine that answers; closed with the backend.
        wanted: models to load before the first query.
    """

    def __init__(self, engine: InferenceEngine, wanted: Sequence[ModelId]) -> None:
        self._engine = engine
        self._wanted = wanted

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the model's answer to one query. Raises ServingError."""
        return await self._engine.predict(query, call.deadline)

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        """Return the outcome of each query, in order. Raises InvalidRequest if the batch is too large."""
        return await self._engine.predict_batch(queries, call.deadline)

    async def predict_ready(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome | None]:
        """Return the outcome of each query that can be answered at once, ``None`` for those to be sent alone."""
        return await self._engine.predict_ready(queries, call.deadline)

    def predict_now(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome | None]:
        """Return what :meth:`predict_ready` returns, without waiting."""
        return self._engine.predict_checked_now(queries, call)

    async def load(self, model_id: ModelId, call: Call) -> ModelResidency:
        """Load the model into memory. Raises ServingError."""
        with await self._engine.load(model_id, call.deadline) as model:
            del model
            return self._state_of(model_id)

    async def residency(self, model_id: ModelId, call: Call) -> Sequence[ModelResidency]:
        """Return the residency of the model in this process."""
        del call
        return [self._state_of(model_id)]

    async def unload(self, model_id: ModelId, call: Call) -> None:
        """Unload the model. Raises ModelPinned."""
        del call
        self._engine.unload(model_id)

    async def forget(self, models: Sequence[Removed], call: Call) -> None:
        """Unload models that were removed. Raises ModelPinned, once the others are unloaded."""
        await forget_each(models, lambda model: self.unload(model.model_id, call))

    async def wait_until_ready(self) -> None:
        """Return once the wanted models are in memory."""
        await self._engine.preload(self._wanted)

    async def close(self) -> None:
        """Close the engine."""
        await self._engine.close()

    def _state_of(self, model_id: ModelId) -> ModelResidency:
        residents, now = self._engine.residency(), time.monotonic()
        resident = residents.seen(model_id)
        counted = self._engine.traffic().listed(model_id, 1)
        statistics = _statistics_of(counted[0], now) if counted else None
        if resident is None:
            return ModelResidency(REPLICA, resident=False, statistics=statistics)
        return from_fields(
            ModelResidency,
            resident,
            replica=REPLICA,
            resident=True,
            pinned=residents.is_pinned(model_id),
            bytes=resident.size,
            idle_seconds=max(0.0, now - resident.last_used),
            statistics=statistics,
        )


def _statistics_of(counted: CountedModel, now: float) -> ModelStatistics:
    return from_fields(ModelStatistics, counted.counter.snapshot(), seconds=max(0.0, now - counted.began))
