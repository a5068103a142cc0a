"""Hosts services on grpcio's own asyncio server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from serving.settings import ServerSettings
from serving.transport.boundary import Boundary
from serving.transport.health import DrainableHealth
from serving.transport.service import Service

log = structlog.get_logger()

_PICK_UP_SECONDS: Final = 2.0
_QUIET_SECONDS: Final = 0.05
_HEALTH_SECONDS: Final = 2.0


class CannotListen(Exception):
    """The address is taken, or is not one of this machine's."""


class GrpcioHost:
    """One listening server with health and reflection. It says NOT_SERVING until :meth:`set_serving`."""

    def __init__(self, settings: ServerSettings, services: Sequence[Service]) -> None:
        self._settings = settings
        self._server = grpc.aio.server(options=_options(settings))
        self._health = DrainableHealth()
        self._names = [service.name for service in services]
        self._boundary = Boundary(
            self._server,
            default_deadline=settings.default_deadline_seconds,
            max_in_flight=settings.max_in_flight,
        )
        for service in services:
            service.register(self._boundary)
        # Health and reflection stream and must answer while the services are full: they stay outside the boundary.
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME),
            self._server,
        )

    async def start(self) -> str:
        """Listen; return the address with the port that was taken.

        Raises:
            CannotListen: the address cannot be had.
        """
        await self.set_serving(False)
        wanted = f"{self._settings.host}:{self._settings.port}"
        try:
            port = self._server.add_insecure_port(wanted)
        except RuntimeError as error:
            raise CannotListen(f"cannot listen on {wanted}: another process may hold it") from error
        await self._server.start()
        return f"{self._settings.host}:{port}"

    async def set_serving(self, serving: bool) -> None:
        """Answer health checks, of the whole server and of each service, with SERVING or NOT_SERVING."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                for name in ("", *self._names):
                    await self._health.set(name, status)
        except TimeoutError:
            # A watcher that reads nothing holds up the others, and would hold up the drain.
            log.warning("health watchers do not read; their streams are ended")
            self._health.end_watches()

    async def stop(self, grace: float) -> None:
        """Refuse new calls, wait up to ``grace`` seconds for those in flight, then end the rest."""
        # The server drops calls that have arrived and are not yet picked up, so those are let in first.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(grace, _PICK_UP_SECONDS)):
                await self._boundary.wait_until_quiet(_QUIET_SECONDS)
        self._health.end_watches()
        await self._server.stop(grace)


def _options(settings: ServerSettings) -> Sequence[tuple[str, Any]]:
    return (
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_concurrent_streams", settings.max_streams_per_connection),
        # Clients keep to the bound by themselves; with this on, the server resets streams at random close to it.
        ("grpc.http.overload_protection", 0),
        # Calls that arrive faster than they are picked up wait here; gRPC would cancel those beyond a thousand.
        ("grpc.server.max_pending_requests", settings.max_in_flight),
        ("grpc.server.max_pending_requests_hard_limit", settings.max_in_flight),
        # Two services on one port would share its calls at random.
        ("grpc.so_reuseport", 0),
        # Reconnecting now and then lets clients find new replicas.
        ("grpc.max_connection_age_ms", 30 * 60 * 1000),
        ("grpc.max_connection_age_grace_ms", 60 * 1000),
        ("grpc.server_handshake_timeout_ms", 10 * 1000),
    )
