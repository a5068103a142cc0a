"""Contents of the PEM files of an encrypted connection."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from intent_serving_client.errors import InvalidConnection


class TlsMaterial(NamedTuple):
    """Certificates of an encrypted connection, in PEM."""

    authority: bytes | None
    """Authority that must have signed the service's certificate; ``None``: one that the system knows."""
    certificate: bytes | None
    """The caller's own certificate, if any."""
    key: bytes | None
    """Private key of ``certificate``."""
    server_name: str | None = None
    """Name for which the service's certificate must be issued; ``None``: the host of the address."""


def read_material(
    authority: Path | None, certificate: Path | None, key: Path | None, server_name: str | None = None
) -> TlsMaterial:
    """Return the contents of PEM files.

    Raises:
        InvalidConnection: a file cannot be read, or only one of certificate and key is given.
    """
    if (certificate is None) != (key is None):
        raise InvalidConnection("the caller's certificate and its key belong together; set both or none")
    return TlsMaterial(
        _contents(authority, "authority"), _contents(certificate, "certificate"), _contents(key, "key"), server_name
    )


def _contents(file: Path | None, kind: str) -> bytes | None:
    if file is None:
        return None
    try:
        contents = file.read_bytes()
    except OSError as error:
        raise InvalidConnection(f"the TLS {kind} file cannot be read: {error.strerror}") from error
    if b"-----BEGIN " not in contents:
        raise InvalidConnection(f"the TLS {kind} file is not PEM")
    return contents
