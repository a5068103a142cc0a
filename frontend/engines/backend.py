"""What the frontend asks of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from frontend.engines.submission import Submit
from serving.call.call import Call
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.residency import ModelResidency


class Manifests(Protocol):
    """Knows the manifests of all models: for engines that do not."""

    async def manifest(self, model_id: ModelId) -> Manifest:
        """Return the model's manifest.

        Raises:
            ServingError: it cannot be had.
        """


class Removed(NamedTuple):
    """A model that is no longer on the volume."""

    model_id: ModelId
    manifest: Manifest | None
    """Its last manifest; ``None`` where it could not be read."""


class EngineBackend(Protocol):
    """An engine that serves models. Answers within the call's deadline; a status of the engine passes unchanged."""

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the model's answer to one query.

        Raises:
            ServingError: why there is none.
        """

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        """Return the outcome of each query, in order.

        Raises:
            ServingError: why there is none for any.
        """

    async def load(self, model_id: ModelId, call: Call) -> ModelResidency | None:
        """Have the model in memory, and return how it is there; ``None`` where the engine does not tell.

        Raises:
            ServingError: why it cannot be loaded.
        """

    async def residency(self, model_id: ModelId, call: Call) -> Sequence[ModelResidency]:
        """Return the replicas that answer for the model, and what each has of it; none where the engine does not tell.

        Raises:
            ServingError: they cannot be asked.
        """

    async def unload(self, model_id: ModelId, call: Call) -> None:
        """Let go of what the model holds in memory; it is loaded again when it is asked for.

        Raises:
            ServingError: it cannot be let go.
        """

    async def forget(self, models: Sequence[Removed], call: Call) -> None:
        """Let go of models that were removed from the volume, at every replica that may hold a copy.

        One failure does not keep the other models and replicas from being asked.

        Raises:
            ServingError: the first failure.
        """

    async def wait_until_ready(self) -> None:
        """Return once the engine can answer."""

    async def close(self) -> None:
        """Give connections back."""


class Backend(EngineBackend, Submit, Protocol):
    """What the router knows of an engine: queries are handed over to it without a task for each."""
