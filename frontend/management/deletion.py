"""Deletion of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from frontend.engines.backend import Backend, Removed
from frontend.management.residency import EngineResidency
from frontend.management.volume import Volume
from frontend.management.watching import ModelWatch
from serving.call.call import Call
from serving.call.tasks import Tasks
from serving.domain.errors import ModelInService, ModelNotFound, ModelUnusable, ServingError
from serving.domain.model_id import ModelId, parse_model_id
from serving.volume.deleting import models_in, remove_hidden, take_away

log = structlog.get_logger()


class Deletions:
    """Deletion of models from the volume, and then from memory.

    Args:
        root: the model folder.
        volume: reads and changes the model folder.
        residency: reports pinned models, and the engines that may hold a model.
        watch: is notified of deletions.
    """

    def __init__(self, root: Path, volume: Volume, residency: EngineResidency, watch: ModelWatch) -> None:
        self._root = root
        self._volume = volume
        self._residency = residency
        self._watch = watch
        self._tasks = Tasks()

    async def delete(self, run_id: str, call: Call, *, force: bool) -> None:
        """Delete a model or a version, and unload it from every replica of its engines.

        An engine that fails to unload the model is logged; the model is removed from the volume nevertheless.

        Raises:
            InvalidModelId: ``run_id`` is not a model id.
            ModelInService: the model is protected, or pinned in memory, and ``force`` is false.
            ServingError: as :func:`~serving.volume.deleting.delete` does, or the engine cannot report
                whether the model is pinned.
        """
        model_id = parse_model_id(run_id)
        if not force and await self._is_pinned(model_id, call):
            raise ModelInService("the model is pinned in memory by a predictor's settings; confirm with force=true")
        # Once the model is removed, its engines must unload it, even if the caller disconnects.
        await self._tasks.completed(self._delete(model_id, call, force=force), "model not deleted")

    async def close(self) -> None:
        """Wait for deletions in progress."""
        await self._tasks.finish()

    async def _delete(self, model_id: ModelId, call: Call, *, force: bool) -> None:
        # Look up versions and engines first: neither can be determined once the folder is removed.
        models = await self._volume.reading(models_in, self._root, model_id)
        holders = await self._residency.holders(models)
        await self._volume.writing(take_away, self._root, model_id, force=force)
        self._watch.look_now()
        try:
            await self._volume.writing(remove_hidden, self._root)
        finally:
            await self._forget(holders, call)

    async def _forget(self, holders: Mapping[Backend, Sequence[Removed]], call: Call) -> None:
        for backend, removed in holders.items():
            try:
                await backend.forget(removed, call)
            except ServingError as error:
                models = [model.model_id for model in removed]
                log.warning("deleted models not unloaded everywhere", models=models, reason=str(error))

    async def _is_pinned(self, model_id: ModelId, call: Call) -> bool:
        try:
            return any(held.pinned for held in await self._residency.of(model_id, call))
        except (ModelNotFound, ModelUnusable):
            # No engine holds the model; the volume decides whether it can be deleted.
            return False
