"""The channel of the extra ``fast``: HTTP/2 with a separate engine, which takes less processor time than grpcio."""

from __future__ import annotations

from grpc_http2.client.calls.retries import RetryPolicy
from grpc_http2.client.channel import Channel
from grpc_http2.client.encryption import client_context
from grpc_http2.client.servers.addresses import addresses_in
from grpc_http2.client.settings import ChannelSettings, Tls
from intent_serving_client.errors import InvalidConnection
from intent_serving_client.material import TlsMaterial


def open_fast_channel(
    address: str,
    tls: TlsMaterial | None,
    metadata: tuple[tuple[str, str], ...],
    *,
    max_answer_bytes: int,
    attempts: int,
) -> Channel:
    """Return an asyncio channel to ``address`` for the running event loop.

    Args:
        address: address of the service, ``host:port``.
        tls: certificates and the server's name; ``None``: the connection is not encrypted.
        metadata: metadata sent with every call.
        max_answer_bytes: size of the largest message that is accepted, in bytes.
        attempts: maximum number of attempts of a call that fails with UNAVAILABLE, including the first.

    Raises:
        InvalidConnection: the certificates cannot be used.
    """
    settings = ChannelSettings(
        max_message_bytes=max_answer_bytes,
        retries=None if attempts == 1 else RetryPolicy(most_attempts=attempts),
    )
    return Channel(addresses_in(address), settings, tls=None if tls is None else _encryption(tls), metadata=metadata)


def _encryption(tls: TlsMaterial) -> Tls:
    try:
        context = client_context(tls.authority, tls.certificate, tls.key)
    except OSError as error:
        raise InvalidConnection(f"the files for TLS cannot be used: {error.strerror or error}") from error
    return Tls(lambda: context, tls.server_name)
