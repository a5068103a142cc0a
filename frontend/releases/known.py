"""Releases by name, remembered, and read again when the file changes."""

from __future__ import annotations

from collections.abc import Sequence

from frontend.routing.remembered import Remembered
from serving.domain.model_id import ModelId
from serving.domain.releases.release import RELEASE_FILE, Release
from serving.volume.file_identity import FileIdentity
from serving.volume.freshness.comparison import FileComparison
from serving.volume.model_store import ModelStore


class KnownReleases:
    """Looks releases up.

    Args:
        store: where models are.
        threads: how many releases are read at the same time.
        freshness_seconds: of a name without a release it is looked for one at most once in this time, when the name is
            asked for.
        release_freshness_seconds: a release is compared with its file at most once in this time, when it is asked for.
        comparison: compares it; not closed here.
    """

    def __init__(
        self,
        store: ModelStore,
        *,
        threads: int,
        freshness_seconds: float,
        release_freshness_seconds: float,
        comparison: FileComparison,
    ) -> None:
        source = _Releases(store, freshness_seconds, release_freshness_seconds, comparison)
        self._releases: Remembered[Release | None] = Remembered(source, threads=threads)

    def has_none(self, name: ModelId) -> bool:
        """Return whether the name is known to have no release; no, where that has to be looked up first."""
        entry = self._releases.at_hand(name)
        return entry is not None and entry.value is None

    async def of(self, name: ModelId) -> Release | None:
        """Return the release of the name; ``None`` where it has none.

        While the volume does not answer, or a release is damaged, the one that is known stays in force.

        Raises:
            ModelNotFound: nothing has this name; remembered for a second.
            InvalidRelease: it cannot be understood, and none is known.
            VolumeUnavailable: the volume does not answer, and nothing is known of the name.
            TooManyLoads: too many are looked up.
        """
        entry = self._releases.at_hand(name)
        return await self._releases.of(name) if entry is None else entry.value

    def learn(self, name: ModelId, release: Release | None) -> None:
        """Take in what the caller has just written, or taken away: it is in force at once.

        A look under way, which may have read the former file, does not undo it; nor does it undo a later revision.
        """
        known = self._releases.known(name)
        if known is None or release is None or known.revision < release.revision:
            self._releases.learn(name, release)

    async def close(self) -> None:
        """End all look-ups."""
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
        """Return the identity of the release's file; ``None`` where there is none. Raises ServingError."""
        file = self._store.release_file(name)
        if file is None:
            # That there is none may be because nothing has this name.
            self._store.fingerprint(name)
        return file

    def read(self, name: ModelId, file: FileIdentity | None) -> Release | None:
        """Return the release. Raises ServingError."""
        return None if file is None else self._store.read_release(name)

    async def changed(self, known: Sequence[tuple[ModelId, FileIdentity | None]]) -> Sequence[bool]:
        """Return of each name whether its release is another file by now, or has come or gone. Raises TimeoutError."""
        return await self._comparison.changed(
            [self._store.known_files(name, {RELEASE_FILE: file}) for name, file in known]
        )

    def freshness_of(self, file: FileIdentity | None) -> float:
        """Return how long a release is taken on trust, or that there is none."""
        return self._freshness_seconds if file is None else self._release_freshness_seconds
