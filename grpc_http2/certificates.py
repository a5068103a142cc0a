"""Loading of a certificate and its private key into a TLS context."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager


def load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load a certificate and its private key into ``context``, which authenticates with them.

    Args:
        context: TLS context of either side.
        certificate: certificate in PEM, with those of the authorities between it and one that the other side knows.
        key: private key of the certificate, in PEM.

    Raises:
        OSError: the certificate or the key is invalid.
    """
    with _in_memory(certificate) as certificate_path, _in_memory(key) as key_path:
        context.load_cert_chain(certificate_path, key_path)


@contextmanager
def _in_memory(contents: bytes) -> Iterator[str]:
    """Yield a path to ``contents``, for a library that reads only from paths. No key is written to a disk."""
    file = os.memfd_create("material")
    try:
        os.write(file, contents)
        os.lseek(file, 0, os.SEEK_SET)
        yield f"/proc/self/fd/{file}"
    finally:
        os.close(file)
