"""What has been counted of each model that was asked through the protocol, over gRPC and REST alike."""

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
    """How long the parts of a request took, in nanoseconds."""

    look_up: int
    """Finding the model."""
    reading: int
    """Its documents in the tensors."""
    engine: int
    """Waiting for the engine, behind others that it answers as well."""
    writing: int
    """Its answers into tensors."""


class ModelCounts(NamedTuple):
    """Of one model, since the service started. What was told does not change: each request makes another."""

    model: str
    version: str
    """The one that was asked last."""
    documents: int = 0
    """Answered."""
    last_milliseconds: int = 0
    """When it was last asked, since 1970; 0: never."""
    requests: int = 0
    """Answered."""
    times: Times = Times(0, 0, 0, 0)
    """Of requests that were answered, altogether."""
    failures: int = 0
    """Requests that were not answered."""
    failure_nanoseconds: int = 0
    """Of those, altogether."""


class InferenceStatistics:
    """Counts requests by model; those that were asked least recently are forgotten beyond ``most_models``."""

    def __init__(self, most_models: int = MOST_MODELS) -> None:
        self._most_models = most_models
        # Least recently asked first. A cache of the library takes reading all for asking each.
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
        """Return what was counted of the model: zeros, where it was never asked."""
        return self._counts.get(model.id) or ModelCounts(model.name, model.version)

    def of_each(self, model: NamedModel) -> Sequence[ModelCounts]:
        """Return what was counted of each version of the model's name that was asked; zeros, where none was."""
        if not model.is_versioned:
            return [self.of(model)]
        return [counts for counts in self._counts.values() if counts.model == model.name] or [self.of(model)]

    def of_all(self) -> Sequence[ModelCounts]:
        """Return what was counted of every model that was asked."""
        return list(self._counts.values())

    def _keep(self, model_id: ModelId, counts: ModelCounts) -> None:
        self._counts[model_id] = counts._replace(last_milliseconds=time.time_ns() // 1_000_000)
        self._counts.move_to_end(model_id)
        if len(self._counts) > self._most_models:
            self._counts.popitem(last=False)
