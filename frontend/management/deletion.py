"""Models, taken away."""

from __future__ import annotations

from pathlib import Path

import structlog

from frontend.management.residency import Residences
from frontend.management.volume import Volume
from frontend.management.watching import ModelWatch
from serving.call import Call
from serving.errors import ModelInService, ModelNotFound, ModelUnusable, ServingError
from serving.management.deleting import delete
from serving.model_id import ModelId, parse_model_id

log = structlog.get_logger()


class Deletions:
    """Takes models from the volume, and then from memory.

    Args:
        root: the model folder.
        volume: changes it.
        residences: knows what is pinned.
        watch: is told.
    """

    def __init__(self, root: Path, volume: Volume, residences: Residences, watch: ModelWatch) -> None:
        self._root = root
        self._volume = volume
        self._residences = residences
        self._watch = watch

    async def delete(self, run_id: str, call: Call, *, force: bool) -> None:
        """Take a model, or a version, away.

        Raises:
            InvalidModelId: ``run_id`` is none.
            ModelInService: it is protected, or pinned in memory, and ``force`` is false.
            ServingError: as :func:`~serving.management.deleting.delete` does; and its engine cannot be asked what is
                pinned.
        """
        model_id = parse_model_id(run_id)
        if not force and await self._is_pinned(model_id, call):
            raise ModelInService("the model is pinned in memory by a predictor's settings; say so with force")
        await self._volume.writing(delete, self._root, model_id, force=force)
        self._watch.look_now()
        try:
            await self._residences.unload(model_id, call)
        except ServingError as error:
            # Its engine finds out by itself when it looks at the files.
            log.info("deleted model not unloaded", model=model_id, reason=str(error))

    async def _is_pinned(self, model_id: ModelId, call: Call) -> bool:
        try:
            return any(residence.pinned for residence in await self._residences.of(model_id, call))
        except (ModelNotFound, ModelUnusable):
            # No engine has it; what it is otherwise, the volume tells.
            return False
