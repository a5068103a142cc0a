"""What of the models is in memory, and having them there or not."""

from __future__ import annotations

from collections.abc import Sequence

from frontend.backends.backend import Backend, Manifests
from frontend.router import Router
from serving.call import Call
from serving.model_id import ModelId
from serving.residence import Residence


class Residences:
    """Asks the engines of models.

    Args:
        manifests: knows the models.
        router: knows the engines.
    """

    def __init__(self, manifests: Manifests, router: Router) -> None:
        self._manifests = manifests
        self._router = router

    async def load(self, model_id: ModelId, call: Call) -> Residence | None:
        """Have the model in memory; ``None`` where its engine does not tell how it is there.

        Raises:
            ServingError: why it cannot be loaded.
        """
        return await (await self._backend_of(model_id)).load(model_id, call)

    async def unload(self, model_id: ModelId, call: Call) -> None:
        """Let the model's engine let go of it.

        Raises:
            ServingError: why it did not.
        """
        await (await self._backend_of(model_id)).unload(model_id, call)

    async def of(self, model_id: ModelId, call: Call) -> Sequence[Residence]:
        """Return what the replicas that answer for the model have of it; none where its engine does not tell.

        Raises:
            ServingError: they cannot be asked.
        """
        return await (await self._backend_of(model_id)).residence(model_id, call)

    async def _backend_of(self, model_id: ModelId) -> Backend:
        return self._router.backend_for(await self._manifests.manifest(model_id))
