"""The names in the certificate with which a caller has proved who it is."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Final

import structlog
from cryptography import x509
from cryptography.x509.oid import NameOID

from serving.call.presented import Presented

log = structlog.get_logger()

_REMEMBERED: Final = 1024


def certificate_names(presented: Presented) -> tuple[str, ...]:
    """Return the common name, the DNS names and the URIs of the caller's certificate, which the server has verified.

    Nothing where the service asks for no certificates. What callers say of themselves in metadata does not count.
    """
    certificate = presented.certificate()
    return () if certificate is None else _names(certificate)


# A caller sends the same certificate with each connection, and each of its calls asks.
@functools.lru_cache(maxsize=_REMEMBERED)
def _names(certificate: bytes) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(_read(x509.load_pem_x509_certificate(certificate))))
    except ValueError:
        # The handshake took it, and it may be odd all the same; then it names nobody.
        log.warning("a caller's certificate cannot be read; it names nobody", exc_info=True)
        return ()


def _read(certificate: x509.Certificate) -> Iterator[str]:
    for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        yield str(name.value)
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    yield from others.get_values_for_type(x509.DNSName)
    yield from others.get_values_for_type(x509.UniformResourceIdentifier)
