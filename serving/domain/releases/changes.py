"""Changes of releases: each function takes a release and returns the next one. Independent of files and clocks.

Each function raises ReleaseRefused for a change that makes no sense, and InvalidRequest for values that a release
cannot have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from intent_serving_client.releases import MAX_HISTORY, Action, WithdrawableRole
from serving.domain.errors import InvalidRequest, ReleaseRefused
from serving.domain.model_id import parse_model_name
from serving.domain.releases.release import MAX_LABELS, Canary, Release, ReleaseChange, Shadow

RESERVED_LABELS: Final = frozenset({"stable", "canary", "shadow"})
"""Names of the roles in a release: neither versions nor labels may have these names."""

MAX_COMMENT: Final = 1024
"""Maximum length of a comment, in characters."""
_MAX_IDENTITY: Final = 256

OnTrial = TypeVar("OnTrial", Canary, Shadow)


def released(release: Release | None, *, version: str, by: str, at: datetime, comment: str = "") -> Release:
    """Return the release with ``version`` as stable; this ends a canary or shadow of the same version.

    Raises:
        ReleaseRefused: the version is stable already.
    """
    _check_version(release, version)
    if release is None:
        return _recorded(
            Release(revision=1, stable=version), action="release", version=version, by=by, at=at, comment=comment
        )
    if release.stable == version:
        raise ReleaseRefused(f"{version} is already stable")
    return _next(_with_stable(release, version), action="release", version=version, by=by, at=at, comment=comment)


def with_canary(
    release: Release | None,
    *,
    version: str,
    share: float | None = None,
    max_error_rate: float | None = None,
    max_disagreement: float | None = None,
    min_answers: int | None = None,
    by: str,
    at: datetime,
    comment: str = "",
) -> Release:
    """Return the release with ``version`` as the canary, which gets a share of the calls and replaces a former canary.

    Share and bounds are those of :class:`Canary`, which also has the defaults for ``None``.

    Raises:
        ReleaseRefused: nothing is stable yet, or this version is.
    """
    _check_version(release, version)
    stable = _beside_stable(release, version)
    update: dict[str, Any] = {
        "canary": _valid(
            Canary,
            version=version,
            share=share,
            max_error_rate=max_error_rate,
            max_disagreement=max_disagreement,
            min_answers=min_answers,
        )
    }
    if stable.shadow is not None and stable.shadow.version == version:
        update["shadow"] = None
    following = stable.model_copy(update=update)
    return _next(following, action="canary", version=version, by=by, at=at, comment=comment)


def with_shadow(
    release: Release | None,
    *,
    version: str,
    share: float | None = None,
    by: str,
    at: datetime,
    comment: str = "",
) -> Release:
    """Return the release with ``version`` as the shadow, whose answers are only compared; it replaces a former shadow.

    Raises:
        ReleaseRefused: nothing is stable yet, or this version is, or it is the canary, which is compared anyway.
    """
    _check_version(release, version)
    stable = _beside_stable(release, version)
    if stable.canary is not None and stable.canary.version == version:
        raise ReleaseRefused(f"{version} is the canary; withdraw the canary first")
    following = stable.model_copy(update={"shadow": _valid(Shadow, version=version, share=share)})
    return _next(following, action="shadow", version=version, by=by, at=at, comment=comment)


def with_label(
    release: Release | None,
    *,
    label: str,
    version: str,
    by: str,
    at: datetime,
    comment: str = "",
    versions: Collection[str] = (),
) -> Release:
    """Return the release in which ``label`` means ``version``.

    Args:
        release: the release to change.
        label: a new label, or one whose meaning changes.
        version: the version that the label means from now on.
        by: the author of the change.
        at: the time of the change.
        comment: the reason for the change.
        versions: the existing versions: a label with the name of a version would hide that version.

    Raises:
        ReleaseRefused: nothing is stable yet, or the label has the name of a role or a version, means this version
            already, or is one too many.
    """
    parse_model_name(label)
    _check_version(release, version)
    if release is None:
        raise _nothing_stable()
    if label in RESERVED_LABELS:
        raise ReleaseRefused(f"a label may not be named {label}, which is the name of a role; choose another label")
    if label in versions or label == version:
        raise ReleaseRefused(f"a version is named {label}; choose another label")
    if release.labels.get(label) == version:
        raise ReleaseRefused(f"{label} already points to {version}")
    labels = {**release.labels, label: version}
    if len(labels) > MAX_LABELS:
        raise ReleaseRefused(f"a release may have at most {MAX_LABELS} labels; withdraw one first")
    return _next(
        release.model_copy(update={"labels": labels}),
        action="label",
        version=version,
        by=by,
        at=at,
        comment=comment,
        label=label,
    )


def promoted(release: Release | None, *, by: str, at: datetime, comment: str = "") -> Release:
    """Return the release with the canary as stable.

    Raises:
        ReleaseRefused: the release has no canary.
    """
    if release is None:
        raise _nothing_stable()
    if release.canary is None:
        raise ReleaseRefused("there is no canary to promote")
    version = release.canary.version
    return _next(_with_stable(release, version), action="promote", version=version, by=by, at=at, comment=comment)


def rolled_back(release: Release | None, *, version: str = "", by: str, at: datetime, comment: str = "") -> Release:
    """Return the release with a former stable version as stable, and without a canary.

    Args:
        release: the release to change.
        version: the former stable version; empty: that of :func:`former_stable`.
        by: the author of the change.
        at: the time of the change.
        comment: the reason for the change.

    Raises:
        ReleaseRefused: there is no former stable version, or ``version`` was not stable before, or is stable now.
    """
    if release is None:
        raise _nothing_stable()
    if not version:
        former = former_stable(release)
        if former is None:
            raise ReleaseRefused("there is no earlier stable version; release a version instead")
        version = former
    elif version == release.stable:
        raise ReleaseRefused(f"{version} is already stable")
    elif all(change.stable != version for change in release.history):
        raise ReleaseRefused(f"{version} was not stable in the recorded history; release it instead")
    without_canary = release.model_copy(update={"canary": None})
    return _next(
        _with_stable(without_canary, version), action="rollback", version=version, by=by, at=at, comment=comment
    )


def withdrawn(
    release: Release | None, *, role: WithdrawableRole, label: str = "", by: str, at: datetime, comment: str = ""
) -> Release:
    """Return the release without its canary, its shadow, or ``label``.

    Raises:
        ReleaseRefused: the release has no such canary, shadow or label.
    """
    if release is None:
        raise _nothing_stable()
    if role == "label":
        if label not in release.labels:
            raise ReleaseRefused("the release has no such label")
        labels = {name: version for name, version in release.labels.items() if name != label}
        without = release.model_copy(update={"labels": labels})
        return _next(
            without, action="withdraw", version=release.labels[label], by=by, at=at, comment=comment, label=label
        )
    trial = release.canary if role == "canary" else release.shadow
    if trial is None:
        raise ReleaseRefused(f"the release has no {role}")
    return _next(
        release.model_copy(update={role: None}), action="withdraw", version=trial.version, by=by, at=at, comment=comment
    )


def taken_back(release: Release | None, *, version: str, by: str = "", at: datetime, comment: str = "") -> Release:
    """Return the release without its canary, which a service takes back by itself if the canary exceeds its bounds.

    Raises:
        ReleaseRefused: the judged ``version`` is no longer the canary.
    """
    if release is None or release.canary is None or release.canary.version != version:
        raise ReleaseRefused(f"{version} is no longer the canary")
    return _next(
        release.model_copy(update={"canary": None}), action="taken back", version=version, by=by, at=at, comment=comment
    )


def former_stable(release: Release) -> str | None:
    """Return the version that a rollback makes stable, which was stable before the present one; ``None`` without one.

    A version that was rolled back does not count until the version is made stable again. Two rollbacks thus go back
    by two versions, rather than alternate between two.
    """
    stables: list[str] = []
    for change in reversed(release.history):
        version = change.stable
        if not version or (stables and stables[-1] == version):
            continue
        if change.action == "rollback":
            stables = stables[: stables.index(version)] if version in stables else stables[:-1]
        else:
            stables = [each for each in stables if each != version]
        stables.append(version)
    return next((version for version in reversed(stables) if version != release.stable), None)


def protected_versions(release: Release) -> Mapping[str, tuple[str, ...]]:
    """Return the protected versions with their roles: the live ones, and ``former`` for the target of a rollback."""
    protected = dict(release.live_versions())
    former = former_stable(release)
    if former is not None:
        protected[former] = (*protected.get(former, ()), "former")
    return protected


def _check_version(release: Release | None, version: str) -> None:
    parse_model_name(version)
    if version in RESERVED_LABELS:
        raise ReleaseRefused(f"a version may not be named {version}, which is the name of a role; choose another name")
    if release is not None and version in release.labels:
        raise ReleaseRefused(
            f"a label is named {version}; withdraw the label, or publish the version under another name"
        )


def _valid(kind: type[OnTrial], **fields: Any) -> OnTrial:
    """Return a version on trial; fields that are ``None`` have the default of ``kind``."""
    try:
        return kind.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        names = ", ".join(str(fault["loc"][0]) for fault in error.errors(include_url=False, include_input=False))
        raise InvalidRequest(
            f"{names}: shares and rates must be from 0 to 1, and min_answers from 1 to 1000000"
        ) from error


def _beside_stable(release: Release | None, version: str) -> Release:
    """Return the release if ``version`` can be tried beside the stable version."""
    if release is None:
        raise _nothing_stable()
    if release.stable == version:
        raise ReleaseRefused(f"{version} is already stable")
    return release


def _with_stable(release: Release, version: str) -> Release:
    """Return the release with another stable version, which ends a trial of that version."""
    update: dict[str, Any] = {"stable": version}
    if release.canary is not None and release.canary.version == version:
        update["canary"] = None
    if release.shadow is not None and release.shadow.version == version:
        update["shadow"] = None
    return release.model_copy(update=update)


def _next(
    release: Release, *, action: Action, version: str, by: str, at: datetime, comment: str, label: str = ""
) -> Release:
    following = release.model_copy(update={"revision": release.revision + 1})
    return _recorded(following, action=action, version=version, by=by, at=at, comment=comment, label=label)


def _recorded(
    release: Release, *, action: Action, version: str, by: str, at: datetime, comment: str, label: str = ""
) -> Release:
    """Return the release with this change as the latest entry of its history."""
    if len(comment) > MAX_COMMENT:
        raise InvalidRequest(f"a comment may have at most {MAX_COMMENT} characters; shorten it")
    change = ReleaseChange(
        revision=release.revision,
        at=at,
        by=by[:_MAX_IDENTITY],
        action=action,
        version=version,
        label=label,
        stable=release.stable,
        comment=comment,
    )
    return release.model_copy(update={"history": (change, *release.history)[:MAX_HISTORY]})


def _nothing_stable() -> ReleaseRefused:
    return ReleaseRefused("nothing is released under this name yet; release a version first")
