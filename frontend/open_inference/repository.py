"""Triton's model repository: which models are there, and loading and unloading them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from frontend.open_inference.models import NamedModels, in_words_of_the_protocol
from frontend.predictions import RoutedPredictions
from serving.call import Call
from serving.errors import ServingError
from serving.model_id import ModelId
from serving.prediction import Query

# Of thousands of manifests that have to be read, so many stand before those that callers wait for.
_LOOKED_UP_AT_ONCE: Final = 16


class IndexedModel(NamedTuple):
    """A model of the index."""

    name: str
    version: str
    """Empty where the model has no manifest that can be read."""
    reason: str
    """Why it is not ready; empty: it is."""


class ModelRepository:
    """The model folder, as clients of Triton see it.

    Args:
        model_ids: lists the models; blocks, and raises ServingError.
        models: finds them.
        predictions: loads and unloads.
    """

    def __init__(
        self, model_ids: Callable[[], Sequence[ModelId]], models: NamedModels, predictions: RoutedPredictions
    ) -> None:
        self._model_ids = model_ids
        self._models = models
        self._predictions = predictions
        # A volume that hangs holds this thread, and none of those that answers need.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="repository")
        self._turn = asyncio.Lock()

    async def index(self, *, ready_only: bool) -> list[IndexedModel]:
        """Return all models, or those that are ready, by name. Nothing is loaded; one index is made at a time.

        Raises:
            VolumeUnavailable: the volume cannot be listed.
        """
        async with self._turn:
            names = await asyncio.get_running_loop().run_in_executor(self._pool, self._model_ids)
            found: list[IndexedModel] = []
            for start in range(0, len(names), _LOOKED_UP_AT_ONCE):
                found += await asyncio.gather(*map(self._indexed, names[start : start + _LOOKED_UP_AT_ONCE]))
            return [model for model in found if not (ready_only and model.reason)]

    async def load(self, name: str, call: Call) -> None:
        """Have the model in memory: its engine is asked for an empty document.

        Raises:
            ServingError: why the model cannot be asked.
        """
        with in_words_of_the_protocol():
            await self._predictions.predict(Query(name, ""), call)

    async def unload(self, name: str, call: Call) -> None:
        """Let the model's engine let go of what it holds in memory; it is loaded again when it is asked for.

        Raises:
            ServingError: why it did not.
        """
        with in_words_of_the_protocol():
            await self._predictions.unload(name, call)

    def close(self) -> None:
        """Give the thread back."""
        # A volume that hangs must not hang the end.
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _indexed(self, name: ModelId) -> IndexedModel:
        version = ""
        try:
            model = await self._models.find(name)
            version = model.version
            self._models.check_engine(model)
        except ServingError as error:
            return IndexedModel(name, version, str(error))
        return IndexedModel(name, version, "")
