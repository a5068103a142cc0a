"""Domain types for the management of models and releases. Independent of protobuf and engines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from intent_serving_client.releases import Release
from intent_serving_client.residency import ModelResidency

Role: TypeAlias = Literal["stable", "canary", "shadow", "label"]
"""Role of a version in a release."""

ChangeKind: TypeAlias = Literal["added", "changed", "removed", "released", "synchronized"]
"""Kind of a change of a model; ``synchronized``: all existing models have been reported."""


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """Entry of a name in a list."""

    name: str
    algorithm: str = ""
    """Algorithm of the model or of its stable version; the next three fields are of the same model."""
    model_version: str = ""
    labels: int = 0
    bytes: int = 0
    versions: tuple[str, ...] = ()
    """Versions of the name; empty for a model in a folder of its own."""
    release: Release | None = None
    problem: str = ""
    """Reason why the model cannot be used; empty: no known problem."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, as in JSON."""
        release = self.release
        canary = None if release is None else release.canary
        shadow = None if release is None else release.shadow
        return {
            "name": self.name,
            "algorithm": self.algorithm,
            "version": self.model_version,
            "labels": self.labels,
            "bytes": self.bytes,
            "versions": list(self.versions),
            "stable": "" if release is None else release.stable,
            "canary": None if canary is None else {"version": canary.version, "share": canary.share},
            "shadow": None if shadow is None else {"version": shadow.version, "share": shadow.share},
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class VersionDescription:
    """Description of a version of a name."""

    version: str
    model_version: str = ""
    algorithm: str = ""
    labels: int = 0
    bytes: int = 0
    problem: str = ""
    roles: tuple[str, ...] = ()
    """Roles of the version: ``stable``, ``canary``, ``shadow``, and labels."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, as in JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Trial:
    """Counts of a version on trial, from the frontend that reports them."""

    role: Role
    version: str
    answers: int = 0
    errors: int = 0
    """Answers that failed."""
    compared: int = 0
    agreed: int = 0
    """Compared answers that had the same label as stable."""
    skipped: int = 0
    """Answers that were not compared because too many comparisons were running."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, as in JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """Release of a name, and the counts of its versions on trial."""

    name: str
    release: Release | None
    """Release, possibly with a truncated history; ``None`` if the name has no release."""
    trials: tuple[Trial, ...] = ()

    @property
    def revision(self) -> int:
        """Revision of the release; 0 if the name has no release."""
        return 0 if self.release is None else self.release.revision

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, as in JSON."""
        release = {} if self.release is None else self.release.as_dict()
        return {"name": self.name, "revision": 0} | release | {"trials": [trial.as_dict() for trial in self.trials]}


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Description of one model."""

    summary: ModelSummary
    manifest: str
    """Manifest of the model or of the described version, as JSON; empty if the manifest cannot be read."""
    versions: tuple[VersionDescription, ...]
    release: ReleaseState | None
    residences: tuple[ModelResidency, ...]


@dataclass(frozen=True, slots=True)
class ModelPage:
    """One page of the list of models."""

    models: tuple[ModelSummary, ...]
    next_page_token: str
    """Token of the next page; empty on the last page."""


@dataclass(frozen=True, slots=True)
class ModelChange:
    """A change of a model."""

    kind: ChangeKind
    model_id: str = ""
    """``id`` or ``name@version``; the name if the release of the name was changed."""
    release: ReleaseState | None = None
    """The new release, if the release was changed."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, as in JSON."""
        release = None if self.release is None else self.release.as_dict()
        return {"kind": self.kind, "id": self.model_id, "release": release}
