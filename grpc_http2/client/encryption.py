"""How a channel proves who it is, and whom it trusts."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager


def client_context(authority: bytes | None, certificate: bytes | None, key: bytes | None) -> ssl.SSLContext:
    """Return a context for connections of a channel.

    Args:
        authority: in PEM, who must have signed the server's certificate; ``None``: an authority that the system knows.
        certificate: the caller's own, in PEM, or none.
        key: its private key, in PEM.

    Raises:
        OSError: one of them is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if authority is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(cadata=authority.decode("ascii", "replace"))
        except ValueError as error:
            raise ssl.SSLError("the authority is no certificate in PEM") from error
    if certificate is not None and key is not None:
        with _in_memory(certificate) as certificate_path, _in_memory(key) as key_path:
            context.load_cert_chain(certificate_path, key_path)
    return context


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
