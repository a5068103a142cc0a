"""Interfaces through which the frontend uses engines."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from frontend.engines.submission import Submit, SubmitBatch
from serving.call.call import Call
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.residency import ModelResidency

GroupOf: TypeAlias = Callable[[Query], Hashable]
"""Returns a key that is equal for queries that may go in one batch."""


class Manifests(Protocol):
    """Source of the manifests of all models, for engines that do not know them."""

    async def manifest(self, model_id: ModelId) -> Manifest:
        """Return the model's manifest.

        Raises:
            ServingError: the manifest is not available.
        """


class ManifestsAtHand(Manifests, Protocol):
    """Source of manifests, most of which are at hand."""

    def manifest_at_hand(self, model_id: ModelId) -> Manifest | None:
        """Return the model's manifest; ``None`` if it has to be awaited."""


class Removed(NamedTuple):
    """A model that is no longer on the volume."""

    model_id: ModelId
    manifest: Manifest | None
    """Last manifest of the model; ``None`` if it could not be read."""


class EngineBackend(Protocol):
    """Access to an engine that serves models.

    Methods return within the call's deadline; a status of the engine is passed on unchanged.
    """

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the model's answer to one query.

        Raises:
            ServingError: the reason that the query has no answer.
        """

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        """Return the outcome of each query, in order.

        Raises:
            ServingError: the reason that no query has an outcome.
        """

    async def load(self, model_id: ModelId, call: Call) -> ModelResidency | None:
        """Ensure that the model is in memory; return its residency, or ``None`` if the engine does not report it.

        Raises:
            ServingError: the reason that the model cannot be loaded.
        """

    async def residency(self, model_id: ModelId, call: Call) -> Sequence[ModelResidency]:
        """Return the model's residency at each replica that answers for it; empty if the engine does not report it.

        Raises:
            ServingError: the replicas cannot be queried.
        """

    async def unload(self, model_id: ModelId, call: Call) -> None:
        """Release the memory that the model holds; the next query loads the model again.

        Raises:
            ServingError: the model cannot be unloaded.
        """

    async def forget(self, models: Sequence[Removed], call: Call) -> None:
        """Unload models that were removed from the volume, at every replica that may hold a copy.

        A failure does not stop the attempts for other models and replicas.

        Raises:
            ServingError: the first failure.
        """

    async def wait_until_ready(self) -> None:
        """Return once the engine can answer."""

    async def close(self) -> None:
        """Close the connections."""


class BatchingBackend(EngineBackend, Protocol):
    """An engine that answers at once those queries of a batch that it can."""

    async def predict_ready(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome | None]:
        """Return the outcome of each query that can be answered at once, ``None`` for queries to be sent alone.

        Raises:
            ServingError: no query has an outcome; the error says why.
        """


class GroupingBackend(BatchingBackend, Protocol):
    """An engine that says how queries are to be batched for it."""

    @property
    def group_of(self) -> GroupOf | None:
        """Function that returns a key that is equal for queries that may go in one batch; ``None``: all queries may."""

    @property
    def submit_batch(self) -> SubmitBatch | None:
        """Function that submits a batch without a task; ``None``: batches have to be awaited."""


class Backend(EngineBackend, Submit, Protocol):
    """Access to an engine as the router uses it: queries are submitted without a task for each."""
