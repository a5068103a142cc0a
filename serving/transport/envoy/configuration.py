"""Envoy's configuration: pyvoy's own, with the limits of a public gRPC server.

The names are those of Envoy's API v3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pyvoy import PyvoyServer

from serving.settings import ServerSettings
from serving.transport.envoy.secrets import transport_socket

_EMBEDDED: Final = "serving.transport.envoy.embedded:application"
LISTENER: Final = "listener"

# The application refuses metadata beyond 16 KiB with a status; what is even larger does not reach it.
_MAX_HEADERS_KIB: Final = 96
_MAX_HEADERS: Final = 200
_WINDOW_BYTES: Final = 1 << 20
# Some calls that are not read must not hold up the others of their connection.
_CONNECTION_WINDOW_BYTES: Final = 16 << 20
_GRACE_SECONDS: Final = 60
_MONITORS: Final = "envoy.extensions.resource_monitors"
_MOST_CONNECTIONS: Final = {
    "name": "envoy.resource_monitors.global_downstream_max_connections",
    "typed_config": {
        "@type": f"type.googleapis.com/{_MONITORS}.downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections": 16_384,
    },
}


def configuration(settings: ServerSettings, admin: Path, secrets: Path) -> dict[str, Any]:
    """Return what Envoy is started with.

    Args:
        settings: of the service.
        admin: the Unix socket of its admin interface.
        secrets: the folder with what it encrypts with.
    """
    server = PyvoyServer(
        _EMBEDDED,
        address=settings.host,
        port=settings.port,
        lifespan=True,
        loop="uvloop",
    )
    result: dict[str, Any] = server.get_envoy_config()
    result["admin"] = {"address": {"pipe": {"path": str(admin), "mode": 0o600}}}
    # Asked for by the discovery of secrets.
    result["node"] = {"id": "intent", "cluster": "intent"}
    result["overload_manager"] = {"resource_monitors": [_MOST_CONNECTIONS]}
    for listener in result["static_resources"]["listeners"]:
        # Two services on one port would share its calls at random.
        listener["enable_reuse_port"] = False
        listener["per_connection_buffer_limit_bytes"] = _WINDOW_BYTES
        for chain in listener["filter_chains"]:
            if settings.tls() is not None:
                asks_callers = settings.tls_client_authority is not None
                chain["transport_socket"] = transport_socket(secrets, asks_callers=asks_callers)
            for network_filter in chain["filters"]:
                network_filter["typed_config"] |= _connection_manager(settings)
    return result


def _connection_manager(settings: ServerSettings) -> dict[str, Any]:
    return {
        "http2_protocol_options": {
            "max_concurrent_streams": settings.max_streams_per_connection,
            "initial_stream_window_size": _WINDOW_BYTES,
            "initial_connection_window_size": _CONNECTION_WINDOW_BYTES,
        },
        "common_http_protocol_options": {
            "max_headers_count": _MAX_HEADERS,
            # Reconnecting now and then lets clients find new replicas.
            "max_connection_duration": f"{settings.connection_age_seconds:.3f}s",
        },
        "drain_timeout": f"{_GRACE_SECONDS}s",
        # Who the caller has proved to be. Whatever callers say of that themselves is taken away.
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"subject": False, "cert": True},
        # Callers need not know what serves them.
        "server_header_transformation": "PASS_THROUGH",
        "max_request_headers_kb": _MAX_HEADERS_KIB,
        "request_headers_timeout": "10s",
        # Streams may be silent for as long as they like: who watches health hears little.
        "stream_idle_timeout": "0s",
    }
