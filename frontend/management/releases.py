"""Changes of releases: the version is tested, the file is written, and the release is then in force here at once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from frontend.management.release_probe import ReleaseProbe
from frontend.management.volume import Volume
from frontend.management.watching import ModelWatch
from frontend.releases.known import KnownReleases
from serving.call.call import Call
from serving.call.tasks import Tasks
from serving.domain.management import Role
from serving.domain.model_id import ModelId
from serving.domain.releases.release import Release
from serving.volume.inventory import Inventory
from serving.volume.planning import PlannedChange, Transition, planned, releasing
from serving.volume.release_writing import change_release

log = structlog.get_logger()


class Releases:
    """Changes of releases.

    Args:
        root: the model folder.
        volume: reads and changes the model folder.
        inventory: lists names, versions and releases.
        probe: tests versions before they go live.
        known: releases by which calls are answered; updated with each written release.
        watch: is notified of each written release.
    """

    def __init__(
        self,
        root: Path,
        *,
        volume: Volume,
        inventory: Inventory,
        probe: ReleaseProbe,
        known: KnownReleases,
        watch: ModelWatch,
    ) -> None:
        self._root = root
        self._volume = volume
        self._inventory = inventory
        self._probe = probe
        self._known = known
        self._watch = watch
        self._tasks = Tasks()

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
        """Change the release of ``name``, and return the new one.

        Args:
            name: name that has versions.
            transition: makes the next release from the current one.
            call: call that requests the change.
            expected_revision: revision that the caller knows; 0: there is no release; ``None``: any.
            comment: reason for the change.
            tries: whether the version concerned has to be tested first.

        Raises:
            ModelNotFound: the name or the version does not exist.
            ReleaseRefused: the change makes no sense, or the version cannot go live.
            ReleaseConflict: another writer has changed the release.
            ServingError: as :func:`~serving.volume.release_writing.change_release` does, or an engine cannot
                be queried.
        """
        change = functools.partial(transition, by=call.identity.name, at=datetime.now(UTC), comment=comment)
        plan = await self._volume.reading(planned, self._inventory, name, change, expected_revision)
        if tries:
            await self._probe.check(name, plan.version, call)
        # A written release is in force even if its caller disconnects, so it must also be recorded here.
        return await self._tasks.completed(self._write(name, plan, expected_revision), "release not changed")

    def releasing(
        self, name: ModelId, version: str, role: Role, label: str, *, share: float | None, bounds: Mapping[str, Any]
    ) -> Transition:
        """Return the transition that makes a version live, as :func:`~serving.volume.planning.releasing` does."""
        return releasing(self._inventory, name, version, role, label=label, share=share, bounds=bounds)

    async def close(self) -> None:
        """Wait for writes in progress."""
        await self._tasks.finish()

    async def _write(self, name: ModelId, plan: PlannedChange, expected_revision: int | None) -> Release:
        release = await self._volume.writing(
            change_release, self._root, name, plan, expected_revision=expected_revision
        )
        self._known.learn(name, release)
        self._watch.released(name, release)
        return release
