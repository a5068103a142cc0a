"""Health checks on a port of their own, never encrypted: for probes that know neither TLS nor certificates.

It tells nothing but SERVING and NOT_SERVING, and takes nothing else.
"""

from __future__ import annotations

from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2_grpc

from serving.transport.hosts.health import DrainableHealth
from serving.wire.listening import CannotListen

_MOST_AT_ONCE: Final = 16
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 1 << 10),
    ("grpc.max_concurrent_streams", _MOST_AT_ONCE),
)


class HealthPort:
    """Answers with what ``health`` knows.

    Args:
        host: address to listen on.
        port: to listen on.
        health: of the service.
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
            CannotListen: the address cannot be had.
        """
        try:
            self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise CannotListen(
                f"cannot listen on {self._address} for health checks: another process may hold it"
            ) from error
        await self._server.start()

    async def stop(self) -> None:
        """Listen no more."""
        await self._server.stop(None)
