"""TLS material of one side, read from files and checked before it is used."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from intent_serving_client.text_files import without_mark
from serving.volume.file_identity import FileIdentity

# Curves and minimum RSA size that BoringSSL serves with; both transports support them.
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_RSA_BITS: Final = 2048


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files for one side of TLS, in PEM."""

    certificate: Path | None
    """Certificate of this side. A server always has one; a client has one where the server requests it."""
    key: Path | None
    """Private key of that certificate."""
    authority: Path | None
    """Authority that must have signed the peer's certificate. A server without an authority requests no certificate."""


class UnusableCertificate(Exception):
    """The certificate, key and authority files cannot be used. The message gives the operator the reason."""


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """A certificate with its matching key, and the authority of the peer, in PEM."""

    certificate: bytes | None
    """Certificate of this side, with the intermediate certificates up to an authority that the peer knows."""
    key: bytes | None = field(repr=False)
    authority: bytes | None
    expires: float
    """End of the certificate's validity, in seconds since 1970; infinite without a certificate."""


def identity_of(files: TlsFiles) -> tuple[FileIdentity | None, ...]:
    """Return a value that changes whenever a file changes, however it is replaced; ``None`` for a missing file."""
    return tuple(FileIdentity.at(path) for path in (files.certificate, files.key, files.authority) if path is not None)


def read_material(files: TlsFiles) -> TlsMaterial:
    """Return the contents of the files.

    Raises:
        UnusableCertificate: a file cannot be read or used, or the files do not match each other.
    """
    authority = None if files.authority is None else _contents(files.authority, "authority")
    if authority is not None:
        _certificates(authority, files.authority, "authority")
    if files.certificate is None or files.key is None:
        return TlsMaterial(None, None, authority, math.inf)
    certificate, key = _contents(files.certificate, "certificate"), _contents(files.key, "key")
    leaf = _certificates(certificate, files.certificate, "certificate")[0]
    if _public_key(leaf) != _public_key_of_private(key, files.key):
        raise UnusableCertificate(
            "the certificate does not belong to this key; replace both files with those of one pair: "
            f"{files.certificate} and {files.key}"
        )
    return TlsMaterial(certificate, key, authority, leaf.not_valid_after_utc.timestamp())


def _contents(path: Path, kind: str) -> bytes:
    try:
        return without_mark(path.read_bytes())
    except OSError as error:
        raise UnusableCertificate(f"the {kind} file cannot be read ({error.strerror}); check {path}") from error


def _certificates(contents: bytes, path: Path | None, kind: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(contents)
    except (ValueError, x509.InvalidVersion) as error:
        raise UnusableCertificate(f"the {kind} file {path} holds no certificate in PEM; replace it") from error


def _public_key(certificate: x509.Certificate) -> bytes:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableCertificate("the certificate's kind of key is not supported; use RSA or ECDSA") from error
    if not _is_served(key):
        raise UnusableCertificate(f"the key must be RSA of {_RSA_BITS} bits or more, or ECDSA on P-256, P-384 or P-521")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _is_served(key: object) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= _RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)


def _public_key_of_private(contents: bytes, path: Path) -> bytes:
    try:
        key = load_pem_private_key(contents, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnusableCertificate(
            f"the key file {path} holds no private key in PEM without a password; replace it"
        ) from error
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
