"""Construction of ModelService on top of the frontend's data plane."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from frontend.engines.backend import Manifests
from frontend.management.deletion import Deletions
from frontend.management.description import Descriptions, ReleaseStates
from frontend.management.listing import MOST_EXAMINED, Listing
from frontend.management.release_probe import ReleaseProbe
from frontend.management.releases import Releases
from frontend.management.residency import EngineResidency
from frontend.management.servicer import ModelServicer, model_service
from frontend.management.volume import Volume
from frontend.management.watching import ModelWatch
from frontend.releases.known import KnownReleases
from frontend.releases.trials import Trials
from frontend.routing.router import Router
from serving.call.closing import close_in_order
from serving.transport.service import Service
from serving.volume.inventory import Inventory
from serving.volume.model_store import ModelStore


@dataclass(frozen=True, slots=True)
class Management:
    """ModelService, and the parts that are closed with it."""

    service: Service
    releases: Releases
    deletions: Deletions
    volume: Volume

    async def close(self) -> None:
        """Wait for writes and deletions in progress, and release the threads."""
        await close_in_order(self.releases.close, self.deletions.close, self.volume.close)


def management(
    root: Path,
    manifests: Manifests,
    router: Router,
    known: KnownReleases,
    trials: Trials,
    *,
    most_examined: int = MOST_EXAMINED,
) -> Management:
    """Return ModelService, to be closed by the caller.

    Args:
        root: the model folder.
        manifests: manifests of the models.
        router: selects their engines.
        known: releases by which calls are answered.
        trials: counts of versions on trial.
        most_examined: maximum number of models that are examined for one page of a list.
    """
    store = ModelStore(root)
    inventory = Inventory(store)
    volume = Volume(inventory)
    residency = EngineResidency(manifests, router)
    states = ReleaseStates(volume, trials)
    watch = ModelWatch(store, volume)
    releases = Releases(
        root,
        volume=volume,
        inventory=inventory,
        probe=ReleaseProbe(store, volume, router),
        known=known,
        watch=watch,
    )
    deletions = Deletions(root, volume, residency, watch)
    servicer = ModelServicer(
        volume=volume,
        listing=Listing(inventory, volume, most_examined),
        descriptions=Descriptions(inventory, store, volume, states, residency),
        residency=residency,
        deletions=deletions,
        states=states,
        releases=releases,
        watch=watch,
    )
    return Management(model_service(servicer), releases, deletions, volume)
