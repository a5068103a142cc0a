"""release.json: which of a name's versions answer. Versions stand beside it, and stay as they were published.

A change of a release is a new file with the next revision, put in the place of the former by one rename.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from serving.domain.errors import InvalidModelId, InvalidRelease
from serving.domain.model_id import parse_model_name
from serving.domain.strict_json import NotStrictJson, parse_json

RELEASE_FILE: Final = "release.json"
MAX_RELEASE_BYTES: Final = 1 << 20
MAX_HISTORY: Final = 100
"""Changes that are remembered, the latest first."""

MAX_LABELS: Final = 64
_SHARES: Final = 1 << 32


def _name(value: str) -> str:
    try:
        return parse_model_name(value)
    except InvalidModelId as error:
        raise ValueError(str(error)) from error


Version = Annotated[str, AfterValidator(_name)]
"""The name of a version's folder."""
Label = Annotated[str, AfterValidator(_name)]

Rate = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]

Action = Literal["release", "canary", "shadow", "label", "promote", "rollback", "withdraw", "taken back"]
"""What was done; what services do by themselves is ``taken back``."""


class Canary(BaseModel):
    """A version that gets a share of the calls, on trial."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Version
    share: Rate = 0.1
    """Of the calls, from 0 to 1."""
    max_error_rate: Rate = 0.02
    """Of its answers; where more have failed, it is taken back."""
    max_disagreement: Rate = 0.2
    """With stable, of answers that were compared; where more are different, it is taken back."""
    min_answers: int = Field(default=50, ge=1, le=1_000_000)
    """Before which nothing is judged."""


class Shadow(BaseModel):
    """A version that is asked as stable is, and whose answers nobody gets: they are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Version
    share: Rate = 1.0
    """Of the calls to stable that it is asked, too."""


class Change(BaseModel):
    """What was done to a release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: int = Field(ge=1)
    at: datetime
    by: str = Field(default="", max_length=256)
    """The identity of who did it; empty where no access is configured."""
    action: Action
    version: Version
    label: str = Field(default="", max_length=128)
    """Where a label was set or withdrawn."""
    stable: str = Field(default="", max_length=128)
    """What was stable afterwards."""
    comment: str = Field(default="", max_length=1024)


class Release(BaseModel):
    """Which versions of a name are live."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: int = Field(ge=1)
    """Grows by one with every change."""
    stable: Version
    canary: Canary | None = None
    shadow: Shadow | None = None
    labels: Mapping[Label, Version] = Field(default_factory=dict, max_length=MAX_LABELS)
    history: tuple[Change, ...] = Field(default=(), max_length=MAX_HISTORY)
    """The latest change first."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the release that ``data`` holds.

        Raises:
            InvalidRelease: it cannot be understood.
        """
        try:
            return cls.model_validate(parse_json(data))
        except NotStrictJson as error:
            raise InvalidRelease("release.json is not valid JSON; write it again") from error
        except ValidationError as error:
            raise InvalidRelease("release.json is not understood; roll back, or write it again") from error

    def to_json(self) -> str:
        """Return the release as JSON text."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), indent=2, ensure_ascii=False) + "\n"

    def version_of(self, selector: str) -> str:
        """Return the version that ``selector`` means: a label, ``stable``, ``canary``, ``shadow``, else a version."""
        if selector in self.labels:
            return self.labels[selector]
        if selector == "stable":
            return self.stable
        if selector == "canary":
            return self.stable if self.canary is None else self.canary.version
        if selector == "shadow" and self.shadow is not None:
            return self.shadow.version
        return selector

    def live_versions(self) -> Mapping[str, tuple[str, ...]]:
        """Return the versions that calls may reach without naming them, and as what."""
        roles: dict[str, tuple[str, ...]] = {self.stable: ("stable",)}
        further = [("canary", self.canary and self.canary.version), ("shadow", self.shadow and self.shadow.version)]
        for role, version in (*further, *self.labels.items()):
            if version:
                roles[version] = (*roles.get(version, ()), role)
        return roles


def falls_within(share: float, *parts: str) -> bool:
    """Return whether what ``parts`` say belongs to a share from 0 to 1: the same for the same parts, everywhere.

    Who belongs to a share belongs to every larger one.
    """
    digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big") < share * _SHARES
