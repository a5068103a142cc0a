"""Releases by name, cached, and read again when the file changes."""

from __future__ import annotations

from collections.abc import Sequence

from frontend.routing.remembered import BOUNDS, MemoryBounds, Remembered
from serving.domain.model_id import ModelId
from serving.domain.releases.release import RELEASE_FILE, Release
from serving.volume.file_identity import FileIdentity
from serving.volume.freshness.comparison import FileComparison
from serving.volume.model_store import ModelStore


class KnownReleases:
    """Cached releases by name.

    Args:
        store: store of the models.
        threads: maximum number of releases read at the same time.
        freshness_seconds: minimum time in seconds between two checks whether a name without a release now has one;
            checks are made when the name is requested.
        release_freshness_seconds: minimum time in seconds between two comparisons of a release with its file;
            comparisons are made when the release is requested.
        comparison: compares files; not closed here.
        bounds: bounds and times of the cache.
    """

    def __init__(
        self,
        store: ModelStore,
        *,
        threads: int,
        freshness_seconds: float,
        release_freshness_seconds: float,
        comparison: FileComparison,
        bounds: MemoryBounds = BOUNDS,
    ) -> None:
        source = _Releases(store, freshness_seconds, release_freshness_seconds, comparison)
        self._releases: Remembered[Release | None] = Remembered(source, threads=threads, bounds=bounds)

    def has_none(self, name: ModelId) -> bool:
        """Return whether the name is known to have no release; false if that has to be looked up first."""
        entry = self._releases.at_hand(name)
        return entry is not None and entry.value is None

    async def of(self, name: ModelId) -> Release | None:
        """Return the release of the name; ``None`` if it has none.

        While the volume does not respond, or a release is damaged, the known release stays in force.

        Raises:
            ModelNotFound: the name does not exist; remembered for a second.
            InvalidRelease: the release cannot be understood, and none is known.
            VolumeUnavailable: the volume does not respond, and nothing is known of the name.
            TooManyLoads: too many names are being looked up.
        """
        entry = self._releases.at_hand(name)
        return await self._releases.of(name) if entry is None else entry.value

    def learn(self, name: ModelId, release: Release | None) -> None:
        """Record a release that the caller has just written or removed; the record is in force at once.

        A lookup in progress, which may have read the former file, does not override the record; the record does not
        override a later revision.
        """
        known = self._releases.known(name)
        if known is None or release is None or known.revision < release.revision:
            self._releases.learn(name, release)

    async def close(self) -> None:
        """Cancel all lookups."""
        await self._releases.close()


class _Releases:
    """A :class:`~frontend.routing.remembered.Source` of the releases in a store."""

    kind = "release"
    event = "release cannot be read; the known one stays"

    def __init__(
        self,
        store: ModelStore,
        freshness_seconds: float,
        release_freshness_seconds: float,
        comparison: FileComparison,
    ) -> None:
        self._store = store
        self._comparison = comparison
        self._freshness_seconds = freshness_seconds
        self._release_freshness_seconds = release_freshness_seconds

    def file_of(self, name: ModelId) -> FileIdentity | None:
        """Return the identity of the release's file; ``None`` if the file is missing. Raises ServingError."""
        file = self._store.release_file(name)
        if file is None:
            # The file may be missing because the name does not exist.
            self._store.fingerprint(name)
        return file

    def read(self, name: ModelId, file: FileIdentity | None) -> Release | None:
        """Return the release. Raises ServingError."""
        return None if file is None else self._store.read_release(name)

    async def changed(self, known: Sequence[tuple[ModelId, FileIdentity | None]]) -> Sequence[bool]:
        """Return for each name whether its release file was replaced, created or removed. Raises TimeoutError."""
        return await self._comparison.changed(
            [self._store.known_files(name, {RELEASE_FILE: file}) for name, file in known]
        )

    def freshness_of(self, file: FileIdentity | None) -> float:
        """Return how long a release, or the absence of one, is trusted without a check, in seconds."""
        return self._freshness_seconds if file is None else self._release_freshness_seconds
