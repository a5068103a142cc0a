"""A backend before another: what passes it unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from frontend.engines.backend import EngineBackend, Removed
from serving.call.call import Call
from serving.domain.model_id import ModelId
from serving.domain.residency import ModelResidency

Behind = TypeVar("Behind", bound=EngineBackend)


class BackendWrapper(Generic[Behind]):
    """The part of a :class:`~frontend.engines.backend.Backend` that is about models, which those behind it answer.

    Args:
        backend: what is behind it.
    """

    def __init__(self, backend: Behind) -> None:
        self._backend = backend

    async def load(self, model_id: ModelId, call: Call) -> ModelResidency | None:
        """Have the model in memory. Raises ServingError."""
        return await self._backend.load(model_id, call)

    async def residency(self, model_id: ModelId, call: Call) -> Sequence[ModelResidency]:
        """Return what the engine's replicas have of the model. Raises ServingError."""
        return await self._backend.residency(model_id, call)

    async def unload(self, model_id: ModelId, call: Call) -> None:
        """Let the engine let go of the model. Raises ServingError."""
        await self._backend.unload(model_id, call)

    async def forget(self, models: Sequence[Removed], call: Call) -> None:
        """Let the engine let go of models that were removed. Raises ServingError."""
        await self._backend.forget(models, call)

    async def wait_until_ready(self) -> None:
        """Return once the engine can answer."""
        await self._backend.wait_until_ready()

    async def close(self) -> None:
        """Close what is behind it."""
        await self._backend.close()
