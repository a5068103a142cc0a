"""Models and releases as they are managed, in the product's own terms: no protobuf, no engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from serving.domain.releases.release import Release
from serving.domain.residency import ModelResidency

Role: TypeAlias = Literal["stable", "canary", "shadow", "label"]
"""What a version is in a release."""

ChangeKind: TypeAlias = Literal["added", "changed", "removed", "released", "synchronized"]
"""What happened to a model; ``synchronized``: all that there is has been told."""


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A name, in a list."""

    name: str
    algorithm: str = ""
    """Of the model, or of its stable version; so are the next three."""
    model_version: str = ""
    labels: int = 0
    bytes: int = 0
    versions: tuple[str, ...] = ()
    """Empty for a model in a folder of its own."""
    release: Release | None = None
    problem: str = ""
    """Why the model cannot be asked; empty: nothing speaks against it."""

    def as_dict(self) -> dict[str, Any]:
        """Return its fields by name, as JSON has them."""
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
    """A version of a name."""

    version: str
    model_version: str = ""
    algorithm: str = ""
    labels: int = 0
    bytes: int = 0
    problem: str = ""
    roles: tuple[str, ...] = ()
    """``stable``, ``canary``, ``shadow``, and labels."""

    def as_dict(self) -> dict[str, Any]:
        """Return its fields by name, as JSON has them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Trial:
    """What a version on trial has shown, at the frontend that tells it."""

    role: Role
    version: str
    answers: int = 0
    errors: int = 0
    """Answers that failed."""
    compared: int = 0
    agreed: int = 0
    """Those of the compared ones that had the label of stable."""
    skipped: int = 0
    """Answers that were not compared, because too many comparisons were under way."""

    def as_dict(self) -> dict[str, Any]:
        """Return its fields by name, as JSON has them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """The release of a name, and what its versions on trial have shown."""

    name: str
    release: Release | None
    """``None`` where the name has none; its history may be cut short."""
    trials: tuple[Trial, ...] = ()

    @property
    def revision(self) -> int:
        """The release's revision; 0 where there is none."""
        return 0 if self.release is None else self.release.revision

    def as_dict(self) -> dict[str, Any]:
        """Return its fields by name, as JSON has them."""
        release = {} if self.release is None else self.release.model_dump(mode="json")
        return {"name": self.name, "revision": 0} | release | {"trials": [trial.as_dict() for trial in self.trials]}


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """One model."""

    summary: ModelSummary
    manifest: str
    """As JSON: of the model, or of the version that is described; empty where it cannot be read."""
    versions: tuple[VersionDescription, ...]
    release: ReleaseState | None
    residences: tuple[ModelResidency, ...]


@dataclass(frozen=True, slots=True)
class ModelPage:
    """A part of the models there are."""

    models: tuple[ModelSummary, ...]
    next_page_token: str
    """Empty where there are no more."""


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What happened to a model."""

    kind: ChangeKind
    model_id: str = ""
    """``id`` or ``name@version``; the name where its release was changed."""
    release: ReleaseState | None = None
    """Where the release was changed."""

    def as_dict(self) -> dict[str, Any]:
        """Return its fields by name, as JSON has them."""
        release = None if self.release is None else self.release.as_dict()
        return {"kind": self.kind, "id": self.model_id, "release": release}
