"""The connections to an engine's replicas: who gets a call, who is passed over, what is tried again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grpc_http2.client.channel import Channel
from grpc_http2.client.retries import RetryPolicy
from grpc_http2.client.settings import ChannelSettings, Pings, Tls

_MAX_ANSWER_BYTES: Final = 64 << 20
# Only what has certainly not been answered, within the caller's deadline, and at most a tenth of all calls. What is to
# be sent again has to be kept; the largest request taken fits.
_RETRIES: Final = RetryPolicy()
# A replica that hangs, or a network that drops packets, is noticed within three seconds, with no call or many.
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
        addresses: of the replicas; none until they are known.
        service: the full name of a gRPC service that each has. Where there are several, its health decides which of
            them get calls.
        retries: whether UNAVAILABLE is tried again.
        pings: whether replicas that hang are found by pings. Servers that do not expect them, as those of others do
            not, hang up after three, whatever calls are in flight.
        tls: encrypts; without it nothing is.
    """
    settings = ChannelSettings(
        max_message_bytes=_MAX_ANSWER_BYTES,
        # One that comes back is found within a second, and one that does not answer is not waited for any longer.
        connect_seconds=1.0,
        first_backoff_seconds=0.1,
        max_backoff_seconds=1.0,
        pings=_PINGS if pings else None,
        retries=_RETRIES if retries else None,
        health_service=service,
    )
    return Channel(addresses, settings, tls=tls)
