"""How a channel proves who it is, and whom it trusts."""

from __future__ import annotations

import ssl

from grpc_http2.pairs import load_pair


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
        load_pair(context, certificate, key)
    return context
