"""The connections to an engine's replicas: who gets a call, who is passed over, what is tried again.

All of it is gRPC's own: the ring hash of its proposals A42 and A76, client-side health checking (A17), retries with a
budget (A6), keepalive (A8). A call names its partition in a header, and the ring gives the replica of that partition:
the same one as long as the replicas are the same. Where one leaves or joins, only its own share moves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import grpc

RING_HASH_VARIABLE: Final = "GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY"
"""Environment variable of gRPC: "true" lets the ring take its hash from a header. Composition roots set it."""

PARTITION_KEY: Final = "x-partition"
"""Metadata key that carries the partition of a call, which the ring turns into a replica."""

PLACES: Final = 1024
"""On the ring, of each replica: as many however many there are, so that none gets places when another leaves."""

Connect: TypeAlias = Callable[[str, Sequence[tuple[str, Any]]], grpc.aio.Channel]
"""Makes a channel to a target of gRPC, with options."""

_MAX_ANSWER_BYTES: Final = 64 << 20
_MAX_KEPT_BYTES: Final = 2 << 20
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
    # A replica that comes back is found within a second, and one that does not answer is not waited for any longer.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", 1000),
    # As large as gRPC takes it: 1,024 places for each of 8,192 replicas.
    ("grpc.lb.ring_hash.ring_size_cap", 1 << 23),
    # What is to be sent again has to be kept; the largest request taken fits.
    ("grpc.per_rpc_retry_buffer_size", _MAX_KEPT_BYTES),
    # Proxies of the environment are for the web, not for a service beside this one.
    ("grpc.enable_http_proxy", 0),
)
# A replica that hangs, or a network that drops packets, is noticed within three seconds, with no call or many.
_PINGS: Final = (
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 2000),
    # This is what is waited for by the gRPC of today; the former is its older name.
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


def channel_to(
    addresses: Sequence[str], service: str, *, pings: bool = True, connect: Connect | None = None
) -> grpc.aio.Channel:
    """Return a channel to replicas at ``addresses``, each ``ip:port``, each of which has the gRPC service ``service``.

    Args:
        addresses: of the replicas.
        service: its full name.
        pings: whether replicas that hang are found by pings. Servers that do not expect them, as those of others do
            not, hang up after three, whatever calls are in flight.
        connect: makes the channel, where it is not a plain one.

    REQUIRES: where there are several, ``RING_HASH_VARIABLE`` is set; without it their calls fail with INTERNAL.
    """
    config = json.dumps(_service_config(service, replicas=len(addresses)))
    options = (*_OPTIONS, *(_PINGS if pings else ()), ("grpc.service_config", config))
    return (connect or grpc.aio.insecure_channel)(_target(addresses), options)


def _target(addresses: Sequence[str]) -> str:
    if len(addresses) == 1:
        return addresses[0]
    return f"{'ipv6' if addresses[0].startswith('[') else 'ipv4'}:{','.join(addresses)}"


def _service_config(service: str, *, replicas: int) -> dict[str, Any]:
    size = PLACES * replicas
    ring = {"minRingSize": size, "maxRingSize": size, "requestHashHeader": PARTITION_KEY}
    config: dict[str, Any] = {
        # Only what has certainly not been answered, within the caller's deadline, and at most a tenth of all calls.
        "methodConfig": [
            {
                "name": [{"service": service}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.03s",
                    "backoffMultiplier": 3,
                    "maxBackoff": "0.3s",
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        # Tokens: a failure takes one, an answer gives a tenth back, and below half of them nothing is tried again.
        "retryThrottling": {"maxTokens": 1000, "tokenRatio": 0.1},
    }
    if replicas > 1:
        config["loadBalancingConfig"] = [{"ring_hash_experimental": ring}]
        config["healthCheckConfig"] = {"serviceName": service}
    return config
