"""release.json: which versions of a name answer. The versions are beside the file, and never change once published.

A change of a release is a new file with the next revision, which replaces the former file by one rename.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, ValidationError

from intent_serving_client.releases import MAX_HISTORY, Action, live_versions
from serving.domain.bounded import Part, at_most
from serving.domain.errors import InvalidModelId, InvalidRelease
from serving.domain.model_id import parse_model_name
from serving.domain.strict_json import NotStrictJson, parse_json

RELEASE_FILE: Final = "release.json"
MAX_RELEASE_BYTES: Final = 1 << 20
MAX_LABELS: Final = 64
_SHARES: Final = 1 << 32


def _name(value: str) -> str:
    try:
        return parse_model_name(value)
    except InvalidModelId as error:
        raise ValueError(str(error)) from error


Version = Annotated[str, AfterValidator(_name)]
"""Name of a version's folder."""
Label = Annotated[str, AfterValidator(_name)]

Rate = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class Canary(Part):
    """A version on trial that gets a share of the calls."""

    version: Version
    share: Rate = 0.1
    """Share of the calls, from 0 to 1."""
    max_error_rate: Rate = 0.02
    """Maximum rate of failed answers; a canary with more is taken back."""
    max_disagreement: Rate = 0.2
    """Maximum rate of compared answers that differ from those of stable; a canary with more is taken back."""
    min_answers: int = Field(default=50, ge=1, le=1_000_000)
    """Number of answers below which the canary is not judged."""


class Shadow(Part):
    """A version that receives the queries of stable, and whose answers are only compared, never returned."""

    version: Version
    share: Rate = 1.0
    """Share of the calls to stable that are also sent to the shadow, from 0 to 1."""


class ReleaseChange(Part):
    """A change of a release."""

    revision: int = Field(ge=1)
    at: datetime
    by: str = Field(default="", max_length=256)
    """Identity of the author; empty if no access is configured."""
    action: Action
    version: Version
    label: str = Field(default="", max_length=128)
    """The label, if one was set or withdrawn."""
    stable: str = Field(default="", max_length=128)
    """Stable version after the change."""
    comment: str = Field(default="", max_length=1024)


class Release(Part):
    """The live versions of a name."""

    revision: int = Field(ge=1)
    """Revision number, which grows by one with every change."""
    stable: Version
    canary: Canary | None = None
    shadow: Shadow | None = None
    labels: Annotated[Mapping[Label, Version], at_most(MAX_LABELS)] = Field(default_factory=dict)
    history: Annotated[tuple[ReleaseChange, ...], at_most(MAX_HISTORY)] = ()
    """Changes, the latest first."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the release that ``data`` holds.

        Raises:
            InvalidRelease: the data is not a valid release.
        """
        try:
            return cls.model_validate(parse_json(data))
        except NotStrictJson as error:
            raise InvalidRelease(f"release.json cannot be read: {error}; roll back, or write it again") from None
        except ValidationError as error:
            raise InvalidRelease("release.json is not a valid release; roll back, or write it again") from error

    def to_json(self) -> str:
        """Return the release as JSON text."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), indent=2, ensure_ascii=False) + "\n"

    def version_of(self, selector: str) -> str:
        """Return the version that ``selector`` means: a label, ``stable``, ``canary``, ``shadow`` or else a version."""
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
        """Return the versions that calls may reach without naming them, with their roles."""
        canary = None if self.canary is None else self.canary.version
        shadow = None if self.shadow is None else self.shadow.version
        return live_versions(self.stable, canary, shadow, self.labels)


def falls_within(share: float, *parts: str) -> bool:
    """Return whether ``parts`` belong to a share from 0 to 1; the result is the same for the same parts everywhere.

    Parts that belong to a share belong to every larger one.
    """
    digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big") < share * _SHARES
