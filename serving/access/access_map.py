"""One version of the access file, made ready for every call to ask."""

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
    """An API key that was given out."""

    identity: Identity
    expires_at: float
    """Seconds since 1970."""


class Tokens(NamedTuple):
    """What is needed for tokens."""

    verifier: TokenVerifier
    remembered: RememberedCredentials


@dataclass(frozen=True, slots=True)
class AccessMap:
    """Who is known, by what they may prove it with. Never changed: a new file makes a new one."""

    identities: Mapping[str, Identity]
    keys: Mapping[bytes, KnownKey]
    """By the SHA-256 of each key."""
    certificates: Mapping[str, Identity]
    tokens: Tokens | None
    """``None``: none are taken."""
    files: tuple[Path, ...]
    """All that were read."""
    remembered_keys: RememberedCredentials = field(default_factory=RememberedCredentials, repr=False, compare=False)
    """Keys as ``authorization`` has them."""


def read_access_map(path: Path, counters: AccessCounters) -> AccessMap:
    """Return the map that the access file at ``path`` describes, with all that it names. Blocks.

    Raises:
        InvalidAccessFile: it, or a file that it names, cannot be used.
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
    # Cryptography of public keys is several megabytes, for those who need it.
    from serving.access.tokens import TokenVerifier  # noqa: PLC0415

    return Tokens(TokenVerifier.read(file.jwt, folder), RememberedCredentials())
