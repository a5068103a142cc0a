"""A change of a release before it is written: which version it is about, so that this one can be tried first."""

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
"""One of :mod:`serving.domain.releases.changes`: takes the release, and ``by``, ``at`` and ``comment`` by name."""
Change: TypeAlias = Callable[[Release | None], Release]
"""A transition that knows who changes the release, when and why."""


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """A change that is about one version, and about no other when it is written."""

    change: Change
    version: str

    def __call__(self, release: Release | None) -> Release:
        """Return the next release.

        Raises:
            ReleaseConflict: the release has changed so that this would be about another version.
            ReleaseRefused: it makes no sense.
        """
        following = self.change(release)
        if following.history[0].version != self.version:
            raise ReleaseConflict(
                "the release was changed meanwhile, and this is about another version now; look at it again"
            )
        return following


def planned(inventory: Inventory, name: ModelId, change: Change, expected_revision: int | None) -> PlannedChange:
    """Return a change of the release of ``name``, with the version that it is about as things are now. Blocks.

    Raises:
        ModelNotFound: there is nothing of this name.
        ReleaseConflict: the release has another revision than the expected one.
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
        inventory: knows what versions there are, which no label may hide.
        name: has versions.
        version: one of its versions.
        role: what it is from then on.
        label: what means it, where that is its role.
        share: of the calls, that a canary or a shadow gets; ``None``: as usual.
        bounds: those of a canary, by the names that :func:`~serving.domain.releases.changes.with_canary` has for them.
    """
    if role == "canary":
        return partial(with_canary, version=version, share=share, **(bounds or {}))
    if role == "shadow":
        return partial(with_shadow, version=version, share=share)
    if role == "stable":
        return partial(released, version=version)

    def labelled(release: Release | None, **change: Any) -> Release:
        # Read when the release is changed: by then there may be other versions.
        versions = inventory.version_names(name)
        return with_label(release, label=label, version=version, versions=versions, **change)

    return labelled
