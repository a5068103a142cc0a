"""Health checks on a separate port, never encrypted: for probes that support neither TLS nor certificates.

The port reports only SERVING and NOT_SERVING, and accepts no other calls.
"""

from __future__ import annotations

from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2_grpc

from serving.transport.hosts.health import DrainableHealth
from serving.transport.hosts.listening import CannotListen

_MOST_AT_ONCE: Final = 16
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 1 << 10),
    ("grpc.max_concurrent_streams", _MOST_AT_ONCE),
)


class HealthPort:
    """Answers health checks with the status in ``health``.

    Args:
        host: address to listen on.
        port: port to listen on.
        health: health of the service.
        shared: whether other workers listen on the port too.
    """

    def __init__(self, host: str, port: int, health: DrainableHealth, *, shared: bool = False) -> None:
        self._address = f"{host}:{port}"
        options = (*_OPTIONS, ("grpc.so_reuseport", int(shared)))
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_MOST_AT_ONCE)
        add_health: Any = health_pb2_grpc.add_HealthServicer_to_server
        add_health(health, self._server)

    async def start(self) -> None:
        """Listen.

        Raises:
            CannotListen: the address is not available.
        """
        try:
            self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise CannotListen(
                f"cannot listen on {self._address} for health checks: another process may hold it"
            ) from error
        await self._server.start()

    async def stop(self) -> None:
        """Stop listening."""
        await self._server.stop(None)
