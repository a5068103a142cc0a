"""One version of the access file, prepared for lookups by every call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from serving.access.access_file import AccessFile, read_access_file
from serving.access.remembered import RememberedCredentials
from serving.call.counters import AccessCounters
from serving.call.identity import Identity

if TYPE_CHECKING:
    from serving.access.tokens import TokenVerifier


class KnownKey(NamedTuple):
    """An API key that was issued."""

    identity: Identity
    expires_at: float
    """Expiry of the key, in seconds since 1970."""


class Tokens(NamedTuple):
    """Verifier of tokens, and tokens that it has verified."""

    verifier: TokenVerifier
    remembered: RememberedCredentials


@dataclass(frozen=True, slots=True)
class AccessMap:
    """Known identities by their credentials. Immutable: a new version of the file makes a new map."""

    identities: Mapping[str, Identity]
    keys: Mapping[bytes, KnownKey]
    """Known keys by their SHA-256."""
    certificates: Mapping[str, Identity]
    tokens: Tokens | None
    """Verification of tokens; ``None``: tokens are not accepted."""
    files: tuple[Path, ...]
    """All files that were read."""
    remembered_keys: RememberedCredentials = field(default_factory=RememberedCredentials, repr=False, compare=False)
    """Keys that were checked, by the value of ``authorization``."""


def read_access_map(path: Path, counters: AccessCounters) -> AccessMap:
    """Return the map that the access file at ``path``, with the files that it names, describes. Blocks.

    Raises:
        InvalidAccessFile: the access file, or a file that it names, cannot be used.
    """
    file = read_access_file(path)
    identities = {name: replace(file.identity_of(name), counters=counters) for name in file.identities}
    return AccessMap(
        identities,
        {
            bytes.fromhex(key.sha256): KnownKey(identities[name], key.expires_at)
            for name, entry in file.identities.items()
            for key in entry.keys
        },
        {
            certificate: identities[name]
            for name, entry in file.identities.items()
            for certificate in entry.certificates
        },
        _tokens_of(file, path.parent),
        (path, *(path.parent / name for name in (file.jwt.files() if file.jwt else ()))),
    )


def _tokens_of(file: AccessFile, folder: Path) -> Tokens | None:
    if file.jwt is None:
        return None
    # Public-key cryptography takes several megabytes; load it only where tokens are configured.
    from serving.access.tokens import TokenVerifier  # noqa: PLC0415

    return Tokens(TokenVerifier.read(file.jwt, folder), RememberedCredentials())
