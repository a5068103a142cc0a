"""Certificates for trying TLS: an authority, and what it signed for each side.

The authority's own key is written nowhere, so that no further certificates can be signed with it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY: Final = "authority.crt"
"""File of the authority's certificate."""
THIS_MACHINE: Final = ("localhost", "127.0.0.1", "::1")
"""Names and addresses of every service's certificate."""
SERVICES: Final = ("frontend", "predictor", "model-service")
CALLER: Final = "caller"

# The clocks of two machines may differ.
_BEFORE: Final = timedelta(minutes=5)


def trial_certificates(names: Sequence[str], days: float) -> Mapping[str, bytes]:
    """Return files in PEM by their names: the authority, and certificate and key of each service and of a caller.

    Args:
        names: further names and addresses of the services.
        days: time until the certificates expire.

    Raises:
        ValueError: one of ``names`` is not allowed in a certificate.
    """
    authority = _Authority(days)
    files = {AUTHORITY: authority.certificate}
    for service in SERVICES:
        files.update(authority.signed(service, (service, *THIS_MACHINE, *names)))
    return files | dict(authority.signed(CALLER, ()))


class _Authority:
    """An authority that lives as long as this object."""

    def __init__(self, days: float) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject("authority for trials")
        self._from = datetime.now(UTC) - _BEFORE
        self._until = self._from + _BEFORE + timedelta(days=days)
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        own = (
            self._begun(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(self._identifier, critical=False)
        )
        self.certificate = own.sign(self._key, SHA256()).public_bytes(Encoding.PEM)
        """The authority's certificate, in PEM."""

    def signed(self, owner: str, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the files of a new certificate and its key. Raises ValueError."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = (
            self._begun(_subject(owner), key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier), critical=False
            )
        )
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(list(_alternatives(names))), critical=False)
        yield f"{owner}.crt", made.sign(self._key, SHA256()).public_bytes(Encoding.PEM)
        yield f"{owner}.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def _begun(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._from)
            .not_valid_after(self._until)
        )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternatives(names: Iterable[str]) -> Iterator[x509.GeneralName]:
    for name in dict.fromkeys(names):
        try:
            yield x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
        except ValueError:
            yield x509.DNSName(name)
