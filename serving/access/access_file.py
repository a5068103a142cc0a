"""The access file: identities, their credentials and their rights.

The file is parsed strictly, and every fault in it is reported.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from intent_serving_client.text_files import without_mark
from serving.call.identity import Identity, Right
from serving.call.limits import Limits
from serving.domain.strict_json import NotStrictJson, parse_json
from serving.files.reloaded import InvalidFile

MAX_FILE_BYTES: Final = 16 << 20
_MAX_FAULTS_REPORTED: Final = 5
_HMAC: Final = re.compile("HS[0-9]+")

Name = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,256}\z")]
"""Name of an identity, in a form that tokens and calls to predictors can carry: printable ASCII without spaces."""
Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,128}\*?\z", min_length=1)]
"""A model's name; with ``*`` at its end, every name with this prefix."""
KeyId = Annotated[str, StringConstraints(min_length=1, max_length=256)]
File = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
"""Path relative to the folder of the access file."""
Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


class InvalidAccessFile(InvalidFile):
    """The access file, or a file that it names, cannot be used. The message gives the reason and contains no secret."""


class _Entry(BaseModel):
    # A misplaced value may be a secret, and faults are logged.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class KeyEntry(_Entry):
    """An API key, identified by its hash."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}\z")
    expires: AwareDatetime | None = None
    """Time from which the key is refused; ``None``: never."""
    comment: str = Field(default="", max_length=256)
    """Note for operators: where the key is used, when it was made."""

    @property
    def expires_at(self) -> float:
        """Expiry of the key, in seconds since 1970; infinite if it never expires."""
        return float("inf") if self.expires is None else self.expires.timestamp()


class LimitsEntry(_Entry):
    """Limits of one identity. An omitted limit does not apply."""

    requests_per_second: float = Field(default=0.0, gt=0.0, le=1e9, allow_inf_nan=False)
    burst: float = Field(default=0.0, ge=1.0, le=1e9, allow_inf_nan=False)
    in_flight: int = Field(default=0, ge=1, le=1_000_000)


class IdentityEntry(_Entry):
    """An identity that may call the service."""

    keys: tuple[KeyEntry, ...] = Field(default=(), max_length=64)
    certificates: tuple[str, ...] = Field(default=(), max_length=64)
    """Names in client certificates that identify this caller."""
    models: tuple[Pattern, ...] = ()
    rights: frozenset[Right] = frozenset()
    limits: LimitsEntry | None = None
    """Limits of this identity; ``None``: those that the service's settings define for every tenant."""
    comment: str = Field(default="", max_length=256)


class JwtSection(_Entry):
    """Requirements for accepted tokens."""

    issuer: str = Field(min_length=1, max_length=1024)
    audience: str = Field(min_length=1, max_length=1024)
    algorithms: frozenset[Algorithm] = Field(min_length=1)
    keys: Mapping[KeyId, File] = Field(default_factory=dict)
    """Files by key id: public keys or certificates in PEM, or secrets where the algorithms are HS*."""
    jwks_file: File | None = None
    """File with a JSON Web Key Set, whose keys carry their own ids."""
    claim: str = Field(default="sub", min_length=1, max_length=256)
    """Claim that names the identity."""
    leeway_seconds: float = Field(default=30.0, ge=0.0, le=600.0)
    """Tolerated difference between the clocks of issuer and service, in seconds."""

    @property
    def symmetric(self) -> bool:
        """Whether tokens are signed with secrets that the service shares with the issuer."""
        return any(_HMAC.fullmatch(name) for name in self.algorithms)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.symmetric and not all(_HMAC.fullmatch(name) for name in self.algorithms):
            raise ValueError("algorithms must not mix secrets (HS*) and public keys; keep one kind")
        if not self.keys and self.jwks_file is None:
            raise ValueError("has no keys; set keys, jwks_file, or both")
        return self

    def files(self) -> Iterator[str]:
        """Yield the files that the section names."""
        yield from self.keys.values()
        if self.jwks_file is not None:
            yield self.jwks_file


class AccessFile(_Entry):
    """The contents of an access file."""

    identities: Mapping[Name, IdentityEntry]
    jwt: JwtSection | None = None

    @model_validator(mode="after")
    def _unambiguous(self) -> Self:
        entries = self.identities.values()
        _check_once("a key hash", (key.sha256 for entry in entries for key in entry.keys))
        _check_once("a certificate name", (name for entry in entries for name in entry.certificates))
        return self

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the access file in ``data``.

        Raises:
            InvalidAccessFile: ``data`` is not a valid access file.
        """
        try:
            return cls.model_validate(parse_json(data))
        except NotStrictJson as error:
            raise InvalidAccessFile(f"the access file cannot be read: {error}") from None
        except ValidationError as error:
            raise InvalidAccessFile(f"the access file is not valid: {_faults(error)}") from None

    def identity_of(self, name: str) -> Identity:
        """Return the identity ``name``, which must be one of ``identities``."""
        entry = self.identities[name]
        limits = None if entry.limits is None else Limits(**entry.limits.model_dump())
        return Identity(name, entry.rights, entry.models, limits)


def read_access_file(path: Path) -> AccessFile:
    """Return the access file at ``path``. Blocks.

    Raises:
        InvalidAccessFile: the file cannot be read or is not valid.
    """
    return AccessFile.parse(read_part(path, "the access file"))


def read_part(path: Path, meaning: str) -> bytes:
    """Return the text of a file that belongs to the configuration, without a byte order mark. Blocks.

    Raises:
        InvalidAccessFile: the file cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidAccessFile(f"{meaning} cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise InvalidAccessFile(f"{meaning} has more than {MAX_FILE_BYTES} bytes")
    return without_mark(data)


def entry_of_key(key_hash: str, expires: datetime | None, comment: str) -> dict[str, str]:
    """Return the entry of a key as the access file contains it."""
    entry = {"sha256": key_hash}
    if expires is not None:
        entry["expires"] = expires.isoformat()
    return entry | ({"comment": comment} if comment else {})


def _check_once(meaning: str, values: Iterable[str]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{meaning} appears twice: {twice[0]}")


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    reported = [f"{_place(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}" for fault in faults]
    more = len(reported) - _MAX_FAULTS_REPORTED
    return "; ".join(reported[:_MAX_FAULTS_REPORTED]) + (f"; and {more} more" if more > 0 else "")


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "the file"
