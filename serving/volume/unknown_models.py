"""Models that were not found, remembered for a moment, so that requests for a wrong id do not burden the volume."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import TTLCache

from serving.domain.causes import detached
from serving.domain.errors import ModelNotFound, ServingError, copy_for_raise
from serving.domain.model_id import ModelId


@dataclass(frozen=True, slots=True)
class UnknownBounds:
    """Bounds of :class:`UnknownModels`."""

    seconds: float = 1.0
    """Time for which a model that does not exist is remembered, in seconds."""
    most: int = 65_536
    """Maximum number of such models."""


class UnknownModels:
    """Remembers models that do not exist.

    Args:
        bounds: number of models, and time for which they are remembered.
        clock: returns the time, in seconds.
    """

    def __init__(self, bounds: UnknownBounds, clock: Callable[[], float] = time.monotonic) -> None:
        self._errors: TTLCache[ModelId, ServingError] = TTLCache(bounds.most, bounds.seconds, timer=clock)

    def check(self, model_id: ModelId) -> None:
        """Check that no recent lookup has found the model missing.

        Raises:
            ModelNotFound: a recent lookup has; a copy of its error.
        """
        error = self._errors.get(model_id)
        if error is not None:
            raise copy_for_raise(error)

    def add(self, model_id: ModelId, error: ModelNotFound) -> None:
        """Remember that the model does not exist; ``error`` says so to callers."""
        self._errors[model_id] = detached(error)

    def discard(self, model_id: ModelId) -> None:
        """Forget a model, which may exist now."""
        self._errors.pop(model_id, None)
