"""Residency of models: which are in memory, and loading and unloading them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from frontend.engines.backend import Backend, Manifests, Removed
from frontend.routing.router import Router
from serving.call.call import Call
from serving.domain.errors import NoBackend, ServingError
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.domain.residency import ModelResidency


class EngineResidency:
    """Residency of models at their engines.

    Args:
        manifests: manifests of the models.
        router: selects engines.
    """

    def __init__(self, manifests: Manifests, router: Router) -> None:
        self._manifests = manifests
        self._router = router

    async def load(self, model_id: ModelId, call: Call) -> ModelResidency | None:
        """Load the model into memory, and return its residency; ``None`` if its engine does not report it.

        Raises:
            ServingError: the model cannot be loaded.
        """
        return await (await self._backend_of(model_id)).load(model_id, call)

    async def unload(self, model_id: ModelId, call: Call) -> None:
        """Unload the model from its engine.

        Raises:
            ServingError: the model cannot be unloaded.
        """
        await (await self._backend_of(model_id)).unload(model_id, call)

    async def of(self, model_id: ModelId, call: Call) -> Sequence[ModelResidency]:
        """Return the residency at each replica that answers for the model; empty if its engine does not report it.

        Raises:
            ServingError: the replicas cannot be queried.
        """
        return await (await self._backend_of(model_id)).residency(model_id, call)

    async def holders(self, model_ids: Sequence[ModelId]) -> Mapping[Backend, Sequence[Removed]]:
        """Return the engines that may hold each model, to be notified once the models are removed.

        If the manifest of a model cannot be read, any engine may hold the model.
        """
        holders: dict[Backend, list[Removed]] = {}
        for model_id in model_ids:
            try:
                manifest: Manifest | None = await self._manifests.manifest(model_id)
            except ServingError:
                manifest = None
            for backend in self._backends_for(manifest):
                holders.setdefault(backend, []).append(Removed(model_id, manifest))
        return holders

    def _backends_for(self, manifest: Manifest | None) -> Sequence[Backend]:
        if manifest is None:
            return self._router.backends
        try:
            return (self._router.backend_for(manifest),)
        except NoBackend:
            return ()

    async def _backend_of(self, model_id: ModelId) -> Backend:
        return self._router.backend_for(await self._manifests.manifest(model_id))
