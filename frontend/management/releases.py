"""Releases, changed: a version is tried first, then the file is written, then it is in force here at once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import structlog

from frontend.management.trying import Trying
from frontend.management.volume import Volume
from frontend.management.watching import ModelWatch
from frontend.releases.known import KnownReleases
from serving.call import Call
from serving.errors import ReleaseConflict
from serving.management.inventory import Inventory
from serving.model_id import ModelId
from serving.releases.changes import with_label
from serving.releases.release import Release
from serving.releases.writing import change_release, check_revision

log = structlog.get_logger()

Transition: TypeAlias = Callable[..., Release]
"""One of :mod:`serving.releases.changes`: takes the release, and ``by``, ``at`` and ``comment`` by name."""


class Releases:
    """Changes releases.

    Args:
        root: the model folder.
        volume: reads and changes it.
        inventory: what there is.
        trying: asks versions before they go live.
        known: what calls are answered by; it learns what was written.
        watch: is told of what was written.
    """

    def __init__(
        self,
        root: Path,
        *,
        volume: Volume,
        inventory: Inventory,
        trying: Trying,
        known: KnownReleases,
        watch: ModelWatch,
    ) -> None:
        self._root = root
        self._volume = volume
        self._inventory = inventory
        self._trying = trying
        self._known = known
        self._watch = watch
        self._tasks: set[asyncio.Task[Release]] = set()

    async def change(
        self,
        name: ModelId,
        transition: Transition,
        call: Call,
        *,
        expected_revision: int | None,
        comment: str,
        tries: bool = True,
    ) -> Release:
        """Change the release of ``name``, and return what it is then.

        Args:
            name: has versions.
            transition: makes the next release of the present one.
            call: in whose name.
            expected_revision: the revision that the caller knows; 0: there is none. ``None``: whatever it is.
            comment: why.
            tries: whether the version that it is about has to be tried first.

        Raises:
            ModelNotFound: there is no such name, or version.
            ReleaseRefused: it makes no sense, or the version cannot go live.
            ReleaseConflict: somebody else has changed the release.
            ServingError: as :func:`~serving.releases.writing.change_release` does, or an engine cannot be asked.
        """
        change = functools.partial(transition, by=call.identity.name, at=datetime.now(UTC), comment=comment)
        version = await self._volume.reading(self._foreseen, name, change, expected_revision)
        if tries:
            await self._trying.check(name, version, call)
        work = asyncio.get_running_loop().create_task(
            self._write(name, functools.partial(_of_version, change, version), expected_revision)
        )
        self._tasks.add(work)
        work.add_done_callback(self._done)
        # What is written is in force, though its caller may have left: it has to be learned too.
        return await asyncio.shield(work)

    def labelling(self, name: ModelId, label: str, version: str) -> Transition:
        """Return the transition that makes ``label`` mean ``version``; it looks at what versions there are."""

        def transition(release: Release | None, **change: Any) -> Release:
            versions = self._inventory.version_names(name)
            return with_label(release, label=label, version=version, versions=versions, **change)

        return transition

    async def close(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _foreseen(self, name: ModelId, change: Callable[[Release | None], Release], expected: int | None) -> str:
        """Return the version that the change is about, as things are now. Blocks."""
        release = self._inventory.existing_release(name)
        check_revision(release, expected)
        return change(release).history[0].version

    async def _write(
        self, name: ModelId, change: Callable[[Release | None], Release], expected_revision: int | None
    ) -> Release:
        release = await self._volume.writing(
            change_release, self._root, name, change, expected_revision=expected_revision
        )
        self._known.learn(name, release)
        self._watch.released(name, release)
        return release

    def _done(self, work: asyncio.Task[Release]) -> None:
        self._tasks.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            log.info("release not changed", reason=str(error))


def _of_version(change: Callable[[Release | None], Release], version: str, release: Release | None) -> Release:
    """Return the next release, as long as it is about the version that was tried."""
    following = change(release)
    if following.history[0].version != version:
        raise ReleaseConflict(
            "the release was changed meanwhile, and this is about another version now; look at it again"
        )
    return following
