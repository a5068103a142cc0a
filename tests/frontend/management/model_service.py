"""A real ModelService before a fake engine, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontend.management.service import management
from frontend.releases.known import KnownReleases
from frontend.releases.trials import Trials
from frontend.routing.catalog import Catalog
from frontend.routing.router import Router
from serving.call.identity import Identity
from serving.stubs import model_service_pb2_grpc as pb_grpc
from serving.transport.guards import Guards, OpenAccess
from serving.transport.hosts.grpcio import GrpcioHost
from serving.volume.freshness.comparison import ThreadComparison
from serving.volume.model_store import ModelStore
from tests.builders import channel_to, publish, server_settings
from tests.fakes.backend import FakeBackend


class KnownAccess(OpenAccess):
    """A fake that identifies every caller as the same one."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def identify(self, context: Any) -> Identity:
        return self._identity


@dataclass
class Running:
    """A hosted ModelService: its stub, and the parts that a test inspects."""

    stub: Any
    root: Path
    backend: FakeBackend
    known: KnownReleases
    trials: Trials


@asynccontextmanager
async def model_service(root: Path, identity: Identity | None = None, **bounds: int) -> AsyncIterator[Running]:
    """Host a ModelService; the releases that calls are answered by learn of a change from this service alone."""
    store = ModelStore(root)
    backend = FakeBackend()
    catalog = Catalog(store, threads=1, freshness_seconds=0.0, comparison=ThreadComparison())
    known = KnownReleases(
        store, threads=1, freshness_seconds=3600.0, release_freshness_seconds=3600.0, comparison=ThreadComparison()
    )
    trials = Trials()
    managed = management(root, catalog, Router({"intent-classification": backend}), known, trials, **bounds)
    guards = Guards() if identity is None else Guards(access=KnownAccess(identity))
    host = GrpcioHost(server_settings(root), [managed.service], guards)
    address = await host.start()
    try:
        async with channel_to(address) as channel:
            yield Running(pb_grpc.ModelServiceStub(channel), root, backend, known, trials)
    finally:
        await host.stop(0)
        await managed.close()
        await known.close()
        await catalog.close()


def versions(root: Path, name: str, *names: str, **keys: Any) -> None:
    """Publish versions of ``name``."""
    for version in names:
        publish(root / name, version, **keys)
