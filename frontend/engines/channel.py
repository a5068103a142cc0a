"""Connections to an engine's replicas: which replica receives a call, which is skipped, which calls are retried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grpc_http2.client.calls.retries import RetryPolicy
from grpc_http2.client.channel import Channel
from grpc_http2.client.settings import ChannelSettings, Pings, Tls

_MAX_ANSWER_BYTES: Final = 64 << 20
# Only calls that have certainly not been answered are retried, within the caller's deadline, and at most a tenth of all
# calls. A request is kept for its retries; the buffer holds the largest request that is accepted.
_RETRIES: Final = RetryPolicy()
# A replica that hangs, or a network that drops packets, is detected within three seconds, with or without calls.
_PINGS: Final = Pings(interval_seconds=1.0, timeout_seconds=2.0)


def channel_to(
    addresses: Sequence[str],
    service: str | None = None,
    *,
    retries: bool = True,
    pings: bool = True,
    tls: Tls | None = None,
) -> Channel:
    """Return a channel to replicas at ``addresses``, each ``ip:port``.

    Args:
        addresses: addresses of the replicas; empty until they are known.
        service: full name of a gRPC service that every replica offers. If there are several replicas, the health of
            this service decides which of them receive calls.
        retries: whether calls that fail with UNAVAILABLE are retried.
        pings: whether pings detect replicas that hang. Servers that do not expect pings, such as third-party ones,
            close the connection after three of them, whatever calls are in flight.
        tls: encryption of the connections; ``None`` for plaintext.
    """
    settings = ChannelSettings(
        max_message_bytes=_MAX_ANSWER_BYTES,
        # A replica that returns is found within a second; one that does not answer is given up after the same time.
        connect_seconds=1.0,
        first_backoff_seconds=0.1,
        max_backoff_seconds=1.0,
        pings=_PINGS if pings else None,
        retries=_RETRIES if retries else None,
        health_service=service,
    )
    return Channel(addresses, settings, tls=tls)
