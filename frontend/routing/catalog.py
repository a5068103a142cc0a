"""Cache of manifests by model id, which are read again when their files change."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from frontend.routing.remembered import BOUNDS, MemoryBounds, Remembered
from serving.domain.errors import ModelIncomplete, ModelNotFound
from serving.domain.manifest import Manifest
from serving.domain.model_id import VERSION_MARK, ModelId
from serving.volume.file_identity import FileIdentity
from serving.volume.freshness.comparison import FileComparison
from serving.volume.model_store import MANIFEST_FILE, MODEL_FILES, ModelStore

_MANIFEST: Final = MODEL_FILES.index(MANIFEST_FILE)


class Catalog:
    """Looks up manifests.

    Args:
        store: store of the models.
        threads: maximum number of manifests that are read at the same time.
        freshness_seconds: a requested manifest is compared with its file at most once in this time.
        comparison: compares manifests with their files; not closed here.
        bounds: bounds and times of the cache.
        clock: returns the time by which absent models are forgotten, in seconds.
    """

    def __init__(
        self,
        store: ModelStore,
        *,
        threads: int,
        freshness_seconds: float,
        comparison: FileComparison,
        bounds: MemoryBounds = BOUNDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        source = _Manifests(store, freshness_seconds, comparison)
        self._manifests: Remembered[Manifest] = Remembered(source, threads=threads, bounds=bounds, clock=clock)

    async def manifest(self, model_id: ModelId) -> Manifest:
        """Return the model's manifest.

        While the volume does not answer, or a manifest is damaged, the known manifest stays in force.

        Raises:
            ModelNotFound: no model has this id; remembered for a second.
            ModelIncomplete: the model has no manifest yet.
            InvalidManifest: the manifest cannot be understood.
            VolumeUnavailable: the volume does not answer, and the manifest is not known.
            TooManyLoads: too many lookups are in progress.
        """
        entry = self._manifests.at_hand(model_id)
        return await self._manifests.of(model_id) if entry is None else entry.value

    def manifest_at_hand(self, model_id: ModelId) -> Manifest | None:
        """Return the model's manifest; ``None`` if it has to be awaited."""
        entry = self._manifests.at_hand(model_id)
        return None if entry is None else entry.value

    async def close(self) -> None:
        """Cancel all lookups."""
        await self._manifests.close()


class _Manifests:
    """A :class:`~frontend.routing.remembered.Source` of the manifests in a store."""

    kind = "manifest"
    event = "manifest cannot be read; the known one stays"

    def __init__(self, store: ModelStore, freshness_seconds: float, comparison: FileComparison) -> None:
        self._store = store
        self._comparison = comparison
        self._freshness_seconds = freshness_seconds

    def file_of(self, model_id: ModelId) -> FileIdentity:
        """Return the identity of the model's manifest. Raises ServingError."""
        file = self._store.fingerprint(model_id).files[_MANIFEST]
        if file is None and VERSION_MARK not in model_id and self._store.versions(model_id):
            raise ModelNotFound("no version of this model is released; request one as name@version, or release one")
        if file is None:
            raise ModelIncomplete(f"the model has no {MANIFEST_FILE} yet; finish its upload")
        return file

    def read(self, model_id: ModelId, file: FileIdentity | None) -> Manifest:
        """Return the manifest. Raises ServingError."""
        del file
        return self._store.read_manifest(model_id)

    async def changed(self, known: Sequence[tuple[ModelId, FileIdentity | None]]) -> Sequence[bool]:
        """Return, for each model, whether its manifest is now another file. Raises TimeoutError."""
        return await self._comparison.changed(
            [self._store.known_files(model_id, {MANIFEST_FILE: file}) for model_id, file in known]
        )

    def freshness_of(self, file: FileIdentity | None) -> float:
        """Return the freshness in seconds, which is the same for all manifests."""
        del file
        return self._freshness_seconds
