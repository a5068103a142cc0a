"""Contents of the PEM files of an encrypted connection."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from intent_serving_client.errors import InvalidConnection
from intent_serving_client.text_files import without_mark


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
        contents_of(authority, "authority"),
        contents_of(certificate, "certificate"),
        contents_of(key, "key"),
        server_name,
    )


def contents_of(file: Path | None, kind: str) -> bytes | None:
    """Return the contents of a PEM file, without a byte order mark; ``None`` without a file.

    Raises:
        InvalidConnection: the file cannot be read, or is not PEM.
    """
    if file is None:
        return None
    try:
        contents = without_mark(file.read_bytes())
    except OSError as error:
        raise InvalidConnection(f"the TLS {kind} file cannot be read: {error.strerror}") from error
    if b"-----BEGIN " not in contents:
        raise InvalidConnection(f"the TLS {kind} file is not PEM")
    return contents
