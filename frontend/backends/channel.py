"""The connections to an engine's replicas: who gets a call, who is passed over, what is tried again.

All of it is gRPC's own: the ring hash of its proposals A42 and A76, client-side health checking (A17), retries with a
budget (A6), keepalive (A8). A call names its partition in a header, and the ring gives the replica of that partition:
the same one as long as the replicas are the same. Where one leaves or joins, only its own share moves.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any, Final

import grpc

RING_HASH_VARIABLE: Final = "GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY"
"""Environment variable of gRPC: "true" lets the ring take its hash from a header. Composition roots set it."""

PARTITION_KEY: Final = "x-partition"
"""Metadata key that carries the partition of a call, which the ring turns into a replica."""

_PARTITIONS: Final = 1024
_RING_SIZE: Final = 4096
_MAX_ANSWER_BYTES: Final = 64 << 20
_MAX_KEPT_BYTES: Final = 2 << 20
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
    # A replica that comes back is found within a second, and one that does not answer is not waited for any longer.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", 1000),
    # A replica that hangs, or a network that drops packets, is noticed within three seconds, with no call or many.
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 2000),
    # This is what is waited for by the gRPC of today; the former is its older name.
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Names are looked up again when a connection ends, which a replica sees to now and then.
    ("grpc.dns_min_time_between_resolutions_ms", 2000),
    # What is to be sent again has to be kept; the largest request taken fits.
    ("grpc.per_rpc_retry_buffer_size", _MAX_KEPT_BYTES),
    # Proxies of the environment are for the web, not for a service beside this one.
    ("grpc.enable_http_proxy", 0),
)


def may_be_several(target: str) -> bool:
    """Return whether ``target`` can stand for several replicas: a name, or a list of addresses."""
    if target.startswith(("ipv4:", "ipv6:")):
        return "," in target
    host, _, _ = target.removeprefix("dns:///").rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return True
    return False


def partitions_before(target: str) -> int:
    """Return into how many partitions the models before ``target`` are grouped where nobody says.

    The share of one of N replicas is off by about sqrt(N / partitions): with 1,024, three replicas hold a third each to
    within a twentieth. The ring itself is as coarse, so more would not even that out; nor would more cost much.
    """
    return _PARTITIONS if may_be_several(target) else 1


def channel_to(target: str, service: str) -> grpc.aio.Channel:
    """Return a channel to the replicas behind ``target``, each of which has the gRPC service ``service``.

    REQUIRES: where there may be several, ``RING_HASH_VARIABLE`` is set; without it their calls fail with INTERNAL.
    """
    config = json.dumps(_service_config(service, spread=may_be_several(target)))
    return grpc.aio.insecure_channel(target, options=(*_OPTIONS, ("grpc.service_config", config)))


def _service_config(service: str, *, spread: bool) -> dict[str, Any]:
    ring = {"minRingSize": _RING_SIZE, "maxRingSize": _RING_SIZE, "requestHashHeader": PARTITION_KEY}
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
    if spread:
        config["loadBalancingConfig"] = [{"ring_hash_experimental": ring}]
        config["healthCheckConfig"] = {"serviceName": service}
    return config
