"""Statistics of each model that was queried through the protocol, over gRPC and REST alike."""

from __future__ import annotations

import operator
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from frontend.open_inference.models import NamedModel
from serving.domain.model_id import ModelId

MOST_MODELS: Final = 10_000


class Times(NamedTuple):
    """Durations of the parts of a request, in nanoseconds."""

    look_up: int
    """Finding the model."""
    reading: int
    """Reading the documents from the tensors."""
    engine: int
    """Waiting for the engine, also behind other queries that the engine answers."""
    writing: int
    """Writing the answers into tensors."""


class ModelCounts(NamedTuple):
    """Counts of one model since the service started. A returned object never changes: each request makes a new one."""

    model: str
    version: str
    """Version that was queried last."""
    documents: int = 0
    """Number of answered documents."""
    last_milliseconds: int = 0
    """Time of the last request, in milliseconds since 1970; 0: never."""
    requests: int = 0
    """Number of answered requests."""
    times: Times = Times(0, 0, 0, 0)
    """Total durations of the answered requests."""
    failures: int = 0
    """Number of requests that were not answered."""
    failure_nanoseconds: int = 0
    """Total duration of the requests that were not answered, in nanoseconds."""


class InferenceStatistics:
    """Counts of requests by model; beyond ``most_models``, the least recently queried models are evicted."""

    def __init__(self, most_models: int = MOST_MODELS) -> None:
        self._most_models = most_models
        # Least recently queried first. A library cache would count reading all entries as a use of each.
        self._counts: OrderedDict[ModelId, ModelCounts] = OrderedDict()

    def count_success(self, model: NamedModel, version: str, documents: int, took: Times) -> None:
        """Count a request that ``version`` of the model answered."""
        counts = self.of(model)
        self._keep(
            model.id,
            counts._replace(
                version=version,
                documents=counts.documents + documents,
                requests=counts.requests + 1,
                times=Times(*map(operator.add, counts.times, took)),
            ),
        )

    def count_failure(self, model: NamedModel, nanoseconds: int) -> None:
        """Count a request that got no answer."""
        counts = self.of(model)
        self._keep(
            model.id,
            counts._replace(failures=counts.failures + 1, failure_nanoseconds=counts.failure_nanoseconds + nanoseconds),
        )

    def of(self, model: NamedModel) -> ModelCounts:
        """Return the counts of the model; zeros if it was never queried."""
        return self._counts.get(model.id) or ModelCounts(model.name, model.version)

    def of_each(self, model: NamedModel) -> Sequence[ModelCounts]:
        """Return the counts of each queried version of the model's name; zeros if none was queried."""
        if not model.is_versioned:
            return [self.of(model)]
        return [counts for counts in self._counts.values() if counts.model == model.name] or [self.of(model)]

    def of_all(self) -> Sequence[ModelCounts]:
        """Return the counts of every queried model."""
        return list(self._counts.values())

    def _keep(self, model_id: ModelId, counts: ModelCounts) -> None:
        self._counts[model_id] = counts._replace(last_milliseconds=time.time_ns() // 1_000_000)
        self._counts.move_to_end(model_id)
        if len(self._counts) > self._most_models:
            self._counts.popitem(last=False)
