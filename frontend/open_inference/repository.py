"""Triton's model repository: the index of models, and loading and unloading them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from frontend.open_inference.models import NamedModel, NamedModels, in_words_of_the_protocol
from frontend.predictions.predictions import RoutedPredictions
from serving.call.call import Call
from serving.domain.errors import ServingError
from serving.domain.model_id import ModelId, reference_of

# An index may read thousands of manifests: at most this many are queued before those that callers wait for.
_LOOKED_UP_AT_ONCE: Final = 16


class IndexedModel(NamedTuple):
    """Model in the index."""

    name: str
    version: str
    """Version; empty if the model has no readable manifest."""
    reason: str
    """Reason why the model is not ready; empty: the model is ready."""


class ModelRepository:
    """Model folder as Triton clients see it.

    Args:
        names: lists the models; blocks, and raises ServingError.
        versions: lists the versions of a name; blocks, and raises ServingError.
        models: finds models.
        predictions: loads and unloads models.
    """

    def __init__(
        self,
        names: Callable[[], Sequence[ModelId]],
        versions: Callable[[ModelId], Sequence[ModelId]],
        models: NamedModels,
        predictions: RoutedPredictions,
    ) -> None:
        self._names = names
        self._versions = versions
        self._models = models
        self._predictions = predictions
        # A hanging volume blocks only this thread, which no answer needs.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="repository")
        self._turn = asyncio.Lock()

    async def index(self, *, ready_only: bool, may_see: Callable[[str], bool] | None = None) -> list[IndexedModel]:
        """Return all models, or only those that are ready, by name; of a name with a release, each live version.

        Nothing is loaded; indexes are built one at a time.

        Args:
            ready_only: omit models that are not ready.
            may_see: whether a name is listed; ``None``: all names are.

        Raises:
            VolumeUnavailable: the volume cannot be listed.
        """
        async with self._turn:
            names = await asyncio.get_running_loop().run_in_executor(self._pool, self._names)
            if may_see is not None:
                names = [name for name in names if may_see(name)]
            found: list[IndexedModel] = []
            for start in range(0, len(names), _LOOKED_UP_AT_ONCE):
                for each in await asyncio.gather(*map(self._indexed, names[start : start + _LOOKED_UP_AT_ONCE])):
                    found += each
            return [model for model in found if not (ready_only and model.reason)]

    async def versions(self, model: NamedModel) -> list[str]:
        """Return the existing versions of a model.

        Raises:
            VolumeUnavailable: the volume cannot be listed.
        """
        name, _ = reference_of(model.id)
        if not model.is_versioned or model.name != name:
            return [model.version]
        found = await asyncio.get_running_loop().run_in_executor(self._pool, self._versions, name)
        return [reference_of(model_id).selector for model_id in found]

    async def load(self, name: str, call: Call) -> None:
        """Load the model, or all live versions of the name, into memory.

        Raises:
            ServingError: the model cannot be loaded.
        """
        with in_words_of_the_protocol():
            await self._predictions.load(name, call)

    async def unload(self, name: str, call: Call) -> None:
        """Unload the model from its engine; the next query loads it again.

        Raises:
            ServingError: the model cannot be unloaded.
        """
        with in_words_of_the_protocol():
            await self._predictions.unload(name, call)

    def close(self) -> None:
        """Release the thread."""
        # A hanging volume must not block the shutdown.
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _indexed(self, name: ModelId) -> list[IndexedModel]:
        try:
            live = await self._models.live(name)
        except ServingError as error:
            return [IndexedModel(name, "", str(error))]
        return [await self._indexed_version(name, version) for version, _ in live or [("", name)]]

    async def _indexed_version(self, name: ModelId, version: str) -> IndexedModel:
        try:
            model = await self._models.find(name, version)
            version = model.version
            self._models.check_engine(model)
        except ServingError as error:
            return IndexedModel(name, version, str(error))
        return IndexedModel(name, version, "")
