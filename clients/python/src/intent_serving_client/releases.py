"""Releases as callers see them: which versions of a name answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

MAX_HISTORY: Final = 100
"""Maximum number of remembered changes, the latest first."""

Action: TypeAlias = Literal["release", "canary", "shadow", "label", "promote", "rollback", "withdraw", "taken back"]
"""Kind of a change; only services themselves make ``taken back``."""

WithdrawableRole: TypeAlias = Literal["canary", "shadow", "label"]
"""Role that can be withdrawn."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A version on trial that gets a share of the calls."""

    version: str
    share: float
    """Share of the calls, from 0 to 1."""
    max_error_rate: float = 0.0
    """Maximum rate of failed answers; a canary with more is taken back. Lists of models leave the bounds out."""
    max_disagreement: float = 0.0
    """Maximum rate of compared answers that differ from those of stable; a canary with more is taken back."""
    min_answers: int = 0
    """Number of answers below which the canary is not judged."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that receives the queries of stable, and whose answers are only compared, never returned."""

    version: str
    share: float
    """Share of the calls to stable that are also sent to the shadow, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class ReleaseChange:
    """A change of a release."""

    revision: int
    at: datetime
    by: str
    """Identity of the author; empty if no access is configured."""
    action: Action
    version: str
    label: str
    """The label, if one was set or withdrawn."""
    stable: str
    """Stable version after the change."""
    comment: str


@dataclass(frozen=True, slots=True)
class Release:
    """The live versions of a name."""

    revision: int
    """Revision number, which grows by one with every change."""
    stable: str
    canary: Canary | None = None
    shadow: Shadow | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Version of each label."""
    history: tuple[ReleaseChange, ...] = ()
    """Changes, the latest first."""

    def live_versions(self) -> Mapping[str, tuple[str, ...]]:
        """Return the versions that calls may reach without naming them, with their roles."""
        canary = None if self.canary is None else self.canary.version
        shadow = None if self.shadow is None else self.shadow.version
        return live_versions(self.stable, canary, shadow, self.labels)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, as in JSON."""
        history = [asdict(change) | {"at": moment(change.at)} for change in self.history]
        return asdict(self) | {"history": history}


def live_versions(
    stable: str, canary: str | None, shadow: str | None, labels: Mapping[str, str]
) -> Mapping[str, tuple[str, ...]]:
    """Return the versions that calls may reach without naming them, with their roles."""
    roles: dict[str, tuple[str, ...]] = {stable: ("stable",)}
    for role, version in (("canary", canary), ("shadow", shadow), *labels.items()):
        if version:
            roles[version] = (*roles.get(version, ()), role)
    return roles


def moment(at: datetime) -> str:
    """Return a time in UTC, in the format of RFC 3339."""
    known = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return known.astimezone(UTC).isoformat().replace("+00:00", "Z")
