"""The services of a host, on any transport: behind the boundary, with health and reflection beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from serving.transport.boundary import Boundary, Transport
from serving.transport.guards import Guards
from serving.transport.hosts.health import DrainableHealth
from serving.transport.hosts.health_port import HealthPort
from serving.transport.hosts.reflection import GuardedReflection
from serving.transport.hosts.settings import HostSettings
from serving.transport.service import Service

log = structlog.get_logger()

LIVENESS: Final = "liveness"
"""Name of the liveness check: SERVING from start to end of the process, to show that the process responds at all."""

_HEALTH_SECONDS: Final = 2.0


class HostedServices:
    """Registers services with a transport, and reports their health."""

    def __init__(
        self, settings: HostSettings, services: Sequence[Service], transport: Transport, guards: Guards
    ) -> None:
        self.boundary = Boundary(transport, default_deadline=settings.default_deadline_seconds, guards=guards)
        self._health = DrainableHealth()
        self._health_port: HealthPort | None = None
        if settings.health_port:
            shared = settings.membership is not None
            self._health_port = HealthPort(settings.host, settings.health_port, self._health, shared=shared)
        self._names = [service.name for service in services]
        for service in services:
            self.boundary.host(service)
        # Health and reflection stream and must answer while the services are full, so they stay outside the boundary.
        # Health checks need no credential; reflection identifies its callers.
        names = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        add_health: Any = health_pb2_grpc.add_HealthServicer_to_server
        add_reflection: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
        add_health(self._health, transport)
        add_reflection(GuardedReflection(names, guards.access), transport)

    async def set_serving(self, serving: bool) -> None:
        """Answer health checks, of the whole server and of each service, with SERVING or NOT_SERVING."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
                for name in ("", *self._names):
                    await self._health.set(name, status)
        except TimeoutError:
            # A watcher that reads nothing holds up the others, and would hold up the drain.
            log.warning("health watchers do not read; ending their streams")
            self._health.end_watches()

    async def open_health_port(self) -> None:
        """Answer health checks on a separate port too, if the settings name one.

        Raises:
            CannotListen: the port is not available.
        """
        if self._health_port is not None:
            await self._health_port.start()

    async def close(self) -> None:
        """End the remaining calls, and stop answering health checks."""
        await self.boundary.close()
        if self._health_port is not None:
            await self._health_port.stop()

    def end_watches(self) -> None:
        """End the streams of health watchers."""
        self._health.end_watches()
