"""Traffic counters of all models: one for each copy of a model, kept when the copy leaves memory."""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from predictor.cache.residency import Resident
from predictor.model.intent_model import IntentModel
from predictor.model.traffic_counter import TrafficCounter, TrafficTotals
from serving.domain.answer_counts import AnswerCounts
from serving.domain.model_id import ModelId, parse_model_id
from serving.volume.model_store import Fingerprint


@dataclass(slots=True, eq=False)
class CountedModel:
    """A copy of a model, and its traffic. REQUIRES: changed by :class:`TrafficRegistry` only."""

    model_id: ModelId
    version: str
    fingerprint: Fingerprint
    generation: int
    """Generation of the copy's last stay in memory."""
    counter: TrafficCounter
    began: float = field(default_factory=time.monotonic)
    """Start of the count; seconds on the monotonic clock."""
    model: weakref.ref[IntentModel] = field(kw_only=True)
    """Weak reference to the copy itself."""

    @property
    def baseline(self) -> AnswerCounts | None:
        """Counts of the model's answers at validation; ``None`` also if the model has left memory."""
        model = self.model()
        return None if model is None else model.baseline


class TrafficRegistry:
    """Registry with a counter for every copy of a model. Safe to use from several threads.

    Args:
        max_models: maximum number of counters; beyond it, those of the least recently queried models are dropped.
    """

    def __init__(self, max_models: int) -> None:
        self._max_models = max_models
        self._lock = threading.Lock()
        self._counted: OrderedDict[ModelId, CountedModel] = OrderedDict()
        """Counted models, the least recently queried first."""
        self._dropped = TrafficTotals()
        """Sums of the counters that were dropped."""

    def counter_of(self, resident: Resident[IntentModel]) -> TrafficCounter | None:
        """Return the counter of the copy in memory; ``None`` if another copy has replaced it meanwhile.

        The same files keep the same counter, however often they are loaded.
        """
        with self._lock:
            counted = self._counted.get(resident.model_id)
            if counted is None or counted.generation != resident.generation:
                return self._begun_or_resumed(counted, resident)
            self._counted.move_to_end(resident.model_id)
            return counted.counter

    def listed(self, model_id: str, limit: int, may_see: Callable[[str], bool] | None = None) -> list[CountedModel]:
        """Return the counts of models, the busiest models first.

        Args:
            model_id: the only model to return, which gives an empty list if it was not queried yet; empty: all models.
            limit: maximum number of models; 0: all.
            may_see: returns whether a model is listed; ignored if ``model_id`` is set. Without it, all are listed.

        Raises:
            InvalidModelId: ``model_id`` is not a valid model id.
        """
        if not model_id:
            if may_see is None:
                return self.busiest(limit)
            return [counted for counted in self.busiest() if may_see(counted.model_id)][: limit or None]
        with self._lock:
            counted = self._counted.get(parse_model_id(model_id))
        return [] if counted is None else [counted]

    def busiest(self, limit: int = 0) -> list[CountedModel]:
        """Return the counts of the ``limit`` models with the most answers, or of all models if ``limit`` is 0."""
        with self._lock:
            every = [*self._counted.values()]
        # Counting continues meanwhile: read each count once, so that the sort keys do not change.
        documents = {counted.model_id: counted.counter.documents for counted in every}
        return sorted(every, key=lambda counted: documents[counted.model_id], reverse=True)[: limit or None]

    def totals(self) -> TrafficTotals:
        """Return the sums over all models since the start, including models whose counters were dropped."""
        with self._lock:
            totals = self._dropped.copy()
            every = [*self._counted.values()]
        for counted in every:
            counted.counter.add_to(totals)
        return totals

    def _begun_or_resumed(self, counted: CountedModel | None, resident: Resident[IntentModel]) -> TrafficCounter | None:
        if counted is not None and counted.fingerprint == resident.fingerprint:
            # The same copy was evicted and loaded again.
            counted.generation = max(counted.generation, resident.generation)
            counted.model = weakref.ref(resident.model)
            self._counted.move_to_end(resident.model_id)
            return counted.counter
        if counted is not None:
            if counted.generation > resident.generation:
                return None
            self._let_go(resident.model_id)
        elif len(self._counted) >= self._max_models:
            self._let_go(next(iter(self._counted)))
        model = resident.model
        begun = CountedModel(
            resident.model_id,
            model.version,
            resident.fingerprint,
            resident.generation,
            TrafficCounter(model.labels),
            model=weakref.ref(model),
        )
        self._counted[resident.model_id] = begun
        return begun.counter

    def _let_go(self, model_id: ModelId) -> None:
        counter = self._counted.pop(model_id).counter
        counter.end()
        counter.add_to(self._dropped)
