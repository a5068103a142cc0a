"""A certificate and its private key, put into a TLS context."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager


def load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Have ``context`` prove with this pair who it is.

    Args:
        context: of either side.
        certificate: in PEM, with those of the authorities between it and the one that the other side knows.
        key: its private key, in PEM.

    Raises:
        OSError: one of them is not what it should be.
    """
    with _in_memory(certificate) as certificate_path, _in_memory(key) as key_path:
        context.load_cert_chain(certificate_path, key_path)


@contextmanager
def _in_memory(contents: bytes) -> Iterator[str]:
    """Give a path that has ``contents``, for a library that reads paths alone. No key is written to a disk."""
    file = os.memfd_create("material")
    try:
        os.write(file, contents)
        os.lseek(file, 0, os.SEEK_SET)
        yield f"/proc/self/fd/{file}"
    finally:
        os.close(file)
