"""Check of a pipeline against the models that callers reach through the frontend."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from frontend.engines.backend import Manifests
from serving.call.identity import Identity
from serving.domain.errors import ModelUnusable, ServingError, Unavailable
from serving.domain.model_id import ModelId
from serving.domain.pipeline_checks import UNKNOWN, Version, asked_next, faults_of
from serving.domain.pipelines.pipeline import MOST_DEPTH, Pipeline, listed


class Releases(Protocol):
    """Source of the versions that queries reach."""

    async def live(self, model_id: ModelId) -> Sequence[ModelId]:
        """Return the models that queries for ``model_id`` may reach. Raises ServingError."""


async def check_models(
    model_id: ModelId, pipeline: Pipeline, releases: Releases, manifests: Manifests, identity: Identity
) -> None:
    """Check a pipeline against the models that it asks. Those that ``identity`` may not use are not looked at.

    Raises:
        ModelUnusable: the pipeline is wrong; the message names every fault.
        Unavailable: a model cannot be looked up at the moment.
    """
    asked: dict[str, Sequence[Version] | ServingError] = {}
    due: Sequence[str] = pipeline.models
    for _ in range(MOST_DEPTH):
        # Faults would tell the caller which models there are, and which labels they have.
        foreign = [model for model in due if not identity.may_use(model)]
        asked.update(dict.fromkeys(foreign, UNKNOWN))
        own = [model for model in due if model not in asked]
        found = await asyncio.gather(*(_versions(ModelId(model), releases, manifests) for model in own))
        asked.update(zip(own, found, strict=True))
        due = asked_next(due, asked)
    faults = faults_of(model_id, pipeline, asked)
    if faults:
        raise ModelUnusable(f"the pipeline cannot be loaded: {listed(faults)}")


async def _versions(model_id: ModelId, releases: Releases, manifests: Manifests) -> Sequence[Version] | ServingError:
    """Return each version that may answer for ``model_id``, or the reason that there is none. Raises Unavailable."""
    try:
        return [Version(live, await manifests.manifest(live)) for live in await releases.live(model_id)]
    except Unavailable:
        raise
    except ServingError as error:
        return error
