"""Releases as callers see them, from those that ``release.json`` holds."""

from __future__ import annotations

from typing import overload

from intent_serving_client import releases as seen
from serving.domain.releases.release import Release


@overload
def view_of(release: Release, history: int | None = None) -> seen.Release: ...
@overload
def view_of(release: None, history: int | None = None) -> None: ...
def view_of(release: Release | None, history: int | None = None) -> seen.Release | None:
    """Return the view of a release with its latest ``history`` changes; ``None``: with all."""
    if release is None:
        return None
    return seen.Release(
        release.revision,
        release.stable,
        None if release.canary is None else seen.Canary(**dict(release.canary)),
        None if release.shadow is None else seen.Shadow(**dict(release.shadow)),
        release.labels,
        tuple(seen.ReleaseChange(**dict(change)) for change in release.history[:history]),
    )
