"""TLS identity of a channel, and the authorities that it trusts."""

from __future__ import annotations

import ssl

from grpc_http2.certificates import load_pair


def client_context(authority: bytes | None, certificate: bytes | None, key: bytes | None) -> ssl.SSLContext:
    """Return a TLS context for the connections of a channel.

    Args:
        authority: authority that must have signed the server's certificate, in PEM; ``None``: one known to the system.
        certificate: client certificate, in PEM, or ``None``.
        key: private key of the certificate, in PEM.

    Raises:
        OSError: one of the arguments is invalid.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if authority is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(cadata=authority.decode("ascii", "replace"))
        except ValueError as error:
            raise ssl.SSLError("the authority is not a certificate in PEM") from error
    if certificate is not None and key is not None:
        load_pair(context, certificate, key)
    return context
