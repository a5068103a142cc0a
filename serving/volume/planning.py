"""Planned changes of releases: the version of a change is known, and can be tried, before the change is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from serving.domain.errors import ReleaseConflict
from serving.domain.management import Role
from serving.domain.model_id import ModelId
from serving.domain.releases.changes import released, with_canary, with_label, with_shadow
from serving.domain.releases.release import Release
from serving.volume.inventory import Inventory
from serving.volume.release_writing import check_revision

Transition: TypeAlias = Callable[..., Release]
"""Function of :mod:`serving.domain.releases.changes` with the release, ``by``, ``at`` and ``comment`` still open."""
ReleaseUpdate: TypeAlias = Callable[[Release | None], Release]
"""A transition whose author, time and comment are set."""


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """A change of one version, which affects no other version when the change is written."""

    change: ReleaseUpdate
    version: str

    def __call__(self, release: Release | None) -> Release:
        """Return the next release.

        Raises:
            ReleaseConflict: the release has changed, and the change would affect another version.
            ReleaseRefused: the change makes no sense.
        """
        following = self.change(release)
        if following.history[0].version != self.version:
            raise ReleaseConflict(
                "the release has changed meanwhile, and now concerns another version; review it, and try again"
            )
        return following


def planned(inventory: Inventory, name: ModelId, change: ReleaseUpdate, expected_revision: int | None) -> PlannedChange:
    """Return a change of the release of ``name``, with the version that the change affects at present. Blocks.

    Raises:
        ModelNotFound: nothing has this name.
        ReleaseConflict: the release does not have the expected revision.
        ReleaseRefused: the change makes no sense.
        ServingError: the release cannot be read.
    """
    release = inventory.existing_release(name)
    check_revision(release, expected_revision)
    return PlannedChange(change, change(release).history[0].version)


def releasing(
    inventory: Inventory,
    name: ModelId,
    version: str,
    role: Role,
    *,
    label: str = "",
    share: float | None = None,
    bounds: Mapping[str, Any] | None = None,
) -> Transition:
    """Return the transition that makes ``version`` of ``name`` live in this role.

    Args:
        inventory: source of the existing versions, which no label may hide.
        name: a name that has versions.
        version: one of the versions of ``name``.
        role: the role of the version from then on.
        label: the label that means the version, if ``role`` is ``label``.
        share: share of the calls for a canary or a shadow; ``None``: the default.
        bounds: bounds of a canary, by their names in :func:`~serving.domain.releases.changes.with_canary`.
    """
    if role == "canary":
        return partial(with_canary, version=version, share=share, **(bounds or {}))
    if role == "shadow":
        return partial(with_shadow, version=version, share=share)
    if role == "stable":
        return partial(released, version=version)

    def labelled(release: Release | None, **change: Any) -> Release:
        # Read when the release is changed: the versions may be different then.
        versions = inventory.version_names(name)
        return with_label(release, label=label, version=version, versions=versions, **change)

    return labelled
