"""The names in the certificate with which a caller has proved its identity."""

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

    The result is empty where the service requests no certificates. Names that callers send in metadata do not count.
    """
    certificate = presented.certificate()
    return () if certificate is None else _names(certificate)


# A caller presents the same certificate on every connection, and every one of its calls looks up the names.
@functools.lru_cache(maxsize=_REMEMBERED)
def _names(certificate: bytes) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(_read(x509.load_pem_x509_certificate(certificate))))
    except ValueError:
        # The handshake accepted the certificate, but it may still be malformed; then it identifies no caller.
        log.warning("a caller's certificate cannot be read; the certificate identifies no caller", exc_info=True)
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
