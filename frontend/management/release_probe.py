"""Test of a version before it goes live: it is loaded, and sent the example of its manifest, as by a caller."""

from __future__ import annotations

from typing import Final

from frontend.management.volume import Volume
from frontend.routing.router import Router
from serving.call.call import Call
from serving.domain.errors import (
    DeadlineExceeded,
    OutOfCapacity,
    PermissionDenied,
    ReleaseRefused,
    ServingError,
    Unauthenticated,
    Unavailable,
)
from serving.domain.model_id import ModelId
from serving.domain.releases.example import check_answer, example_query
from serving.volume.model_store import ModelStore

# The version is not the cause: a retry may help, or the operator has to act.
_NOT_OF_THE_VERSION: Final = (Unavailable, DeadlineExceeded, OutOfCapacity, Unauthenticated, PermissionDenied)


class ReleaseProbe:
    """Test of versions before callers reach them.

    Args:
        store: reads manifests.
        volume: runs the blocking reads in threads.
        router: selects the engine, which is the one that answers callers.
    """

    def __init__(self, store: ModelStore, volume: Volume, router: Router) -> None:
        self._store = store
        self._volume = volume
        self._router = router

    async def check(self, name: ModelId, version: str, call: Call) -> None:
        """Check that the version can go live.

        Raises:
            ModelNotFound: the version does not exist.
            ReleaseRefused: the version cannot be loaded, or its answer differs from the example of its manifest.
            ServingError: the engine cannot be queried at the moment.
        """
        model_id = await self._volume.version_of(name, version)
        try:
            await self._probe(model_id, call)
        except _NOT_OF_THE_VERSION:
            raise
        except ServingError as error:
            raise ReleaseRefused(f"{version} does not go live, and the release stays as it is: {error}") from error

    async def _probe(self, model_id: ModelId, call: Call) -> None:
        manifest = await self._volume.reading(self._store.read_manifest, model_id)
        backend = self._router.backend_for(manifest)
        await backend.load(model_id, call)
        # A manager of a pipeline need not have the right to ask its models for answers.
        test = call if manifest.pipeline is None else call.with_identity(call.identity.testing())
        answer = await backend.predict(example_query(model_id, manifest, call.identity.name), test)
        check_answer(manifest, answer)
