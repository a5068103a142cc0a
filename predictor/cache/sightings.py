"""First sightings of copies that no sums prove to be whole: such a copy is loaded once it has settled.

A copy that arrives file by file mixes two models for a while; its files arrive at shorter intervals than the time to
settle.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cachetools import LRUCache

from serving.domain.model_id import ModelId
from serving.volume.model_store import Fingerprint


class Sightings:
    """Measures how long each model's files have been unchanged, from when their present state was first seen.

    Only this machine's monotonic clock counts. The times of the files come from the clock of a file server, which may
    differ by minutes.

    Args:
        settle_seconds: time for which files have to stay as they are, in seconds.
        most_models: maximum number of models whose first sighting is remembered; the copy of a model that was forgotten
            has to settle again.
        clock: returns the time in seconds; never goes back.
    """

    def __init__(self, settle_seconds: float, most_models: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._settle_seconds = settle_seconds
        self._clock = clock
        self._first: LRUCache[ModelId, tuple[Fingerprint, float]] = LRUCache(most_models)

    def have_settled(self, model_id: ModelId, fingerprint: Fingerprint) -> bool:
        """Return whether the model's files were first seen as they are long enough ago."""
        seen, first = self._first.get(model_id, (None, 0.0))
        return seen == fingerprint and self._clock() - first >= self._settle_seconds

    def seen(self, model_id: ModelId, fingerprint: Fingerprint) -> float:
        """Record that the model's files are as ``fingerprint`` says; return the seconds until they have settled."""
        known, first = self._first.get(model_id, (None, 0.0))
        if known != fingerprint:
            first = self._clock()
            self._first[model_id] = fingerprint, first
        return max(0.0, first + self._settle_seconds - self._clock())
