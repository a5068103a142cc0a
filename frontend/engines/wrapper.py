"""Base of backends that wrap another: the methods that are passed on unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from frontend.engines.backend import EngineBackend, Removed
from serving.call.call import Call
from serving.domain.model_id import ModelId
from serving.domain.residency import ModelResidency

Behind = TypeVar("Behind", bound=EngineBackend)


class BackendWrapper(Generic[Behind]):
    """The methods of a :class:`~frontend.engines.backend.Backend` that manage models, passed on to the wrapped backend.

    Args:
        backend: the wrapped backend.
    """

    def __init__(self, backend: Behind) -> None:
        self._backend = backend

    async def load(self, model_id: ModelId, call: Call) -> ModelResidency | None:
        """Ensure that the model is in memory. Raises ServingError."""
        return await self._backend.load(model_id, call)

    async def residency(self, model_id: ModelId, call: Call) -> Sequence[ModelResidency]:
        """Return the model's residency at the engine's replicas. Raises ServingError."""
        return await self._backend.residency(model_id, call)

    async def unload(self, model_id: ModelId, call: Call) -> None:
        """Unload the model at the engine. Raises ServingError."""
        await self._backend.unload(model_id, call)

    async def forget(self, models: Sequence[Removed], call: Call) -> None:
        """Unload removed models at the engine. Raises ServingError."""
        await self._backend.forget(models, call)

    async def wait_until_ready(self) -> None:
        """Return once the engine can answer."""
        await self._backend.wait_until_ready()

    async def close(self) -> None:
        """Close the wrapped backend."""
        await self._backend.close()
