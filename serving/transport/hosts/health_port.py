"""Health checks on a separate port, never encrypted: for probes that support neither TLS nor certificates.

The port reports only SERVING and NOT_SERVING, and accepts no other calls.
"""

from __future__ import annotations

from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2_grpc

from intent_serving_client.addresses import address_of
from serving.transport.hosts.health import DrainableHealth
from serving.transport.hosts.listening import cannot_listen, cause_of_refusal

_PURPOSE: Final = " for health checks"
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
        self._host = host
        self._port = port
        self._shared = shared
        options = (*_OPTIONS, ("grpc.so_reuseport", int(shared)))
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_MOST_AT_ONCE)
        add_health: Any = health_pb2_grpc.add_HealthServicer_to_server
        add_health(health, self._server)

    async def start(self) -> None:
        """Listen.

        Raises:
            CannotListen: the address is not available.
        """
        # gRPC does not say why it cannot listen, and writes its own log lines. Workers share a port that is reserved.
        if not self._shared and (cause := await cause_of_refusal(self._host, self._port)) is not None:
            raise cannot_listen(self._host, self._port, cause, _PURPOSE)
        try:
            self._server.add_insecure_port(address_of(self._host, self._port))
        except RuntimeError as error:
            cause = await cause_of_refusal(self._host, self._port)
            raise cannot_listen(self._host, self._port, cause, _PURPOSE) from error
        await self._server.start()

    async def stop(self) -> None:
        """Stop listening."""
        await self._server.stop(None)
