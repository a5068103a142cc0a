"""Contents of the PEM files of an encrypted connection."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final, NamedTuple

from intent_serving_client.errors import InvalidConnection
from intent_serving_client.text_files import without_mark

_WHAT: Final = {
    "authority": "the certificate of the authority that signed the service's certificate",
    "certificate": "the caller's own certificate",
    "key": "the private key of the caller's certificate, without a password",
}


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
        InvalidConnection: a file cannot be read or used, or only one of certificate and key is given.
    """
    if (certificate is None) != (key is None):
        raise InvalidConnection("the caller's certificate and its key belong together; set both or none")
    material = TlsMaterial(
        contents_of(authority, "authority"),
        contents_of(certificate, "certificate"),
        contents_of(key, "key"),
        server_name,
    )
    for file, contents, kind in (
        (authority, material.authority, "authority"),
        (certificate, material.certificate, "certificate"),
    ):
        if contents is not None and not _holds_certificate(contents):
            raise InvalidConnection(f"the TLS {kind} file {file} holds no certificate; it must be {_WHAT[kind]}")
    if certificate is not None and key is not None:
        _check_pair(certificate, key, material)
    return material


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
        raise InvalidConnection(f"the TLS {kind} file {file} cannot be read: {error.strerror}") from error
    if b"-----BEGIN " not in contents:
        what = _WHAT.get(kind, "a certificate or a key")
        raise InvalidConnection(f"the TLS {kind} file {file} is not PEM; it must be {what}, in PEM")
    return contents


def _holds_certificate(contents: bytes) -> bool:
    """Return whether the library of gRPC, which logs what it refuses, can be given ``contents`` as certificates."""
    try:
        # This also accepts other parts of PEM, and reads none of them.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=contents.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError):
        return False
    return True


def _check_pair(certificate: Path, key: Path, material: TlsMaterial) -> None:
    """Check that ``key`` is the private key of ``certificate``. Raises InvalidConnection."""
    if certificate.read_bytes() != material.certificate or key.read_bytes() != material.key:
        return  # OpenSSL reads from files alone, and stumbles over a byte order mark
    try:
        # Without a password, the library would ask at the terminal for that of an encrypted key.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            raise InvalidConnection(
                f"the TLS key file {key} is not of the certificate in {certificate}; give the files of one pair"
            ) from error
        raise InvalidConnection(
            f"the TLS certificate file {certificate} or its key file {key} cannot be used; they must be"
            f" {_WHAT['certificate']}, and {_WHAT['key']}"
        ) from error
