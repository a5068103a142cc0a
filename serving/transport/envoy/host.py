"""Hosts services on the Envoy that this process is part of."""

from __future__ import annotations

import asyncio

from serving.settings import ServerSettings
from serving.transport.asgi.application import GrpcApplication
from serving.transport.envoy.control import Control
from serving.transport.hosted import HostedServices
from serving.transport.lifecycle import Workload


class EnvoyHost:
    """The services, as an ASGI application that Envoy calls.

    Args:
        settings: of the service.
        workload: what is served.
        control: the way to the supervisor.
        address: set once Envoy listens.
        drained: set once Envoy has no call left, after it was told to drain.
    """

    def __init__(
        self,
        settings: ServerSettings,
        workload: Workload,
        control: Control,
        address: asyncio.Future[str],
        drained: asyncio.Event,
    ) -> None:
        self.application = GrpcApplication(
            max_message_bytes=settings.max_message_bytes, unary_seconds=settings.default_deadline_seconds
        )
        self._hosted = HostedServices(settings, workload.services, self.application, workload.guards)
        if workload.web is not None:
            self.application.otherwise = workload.web(self._hosted.boundary)
        self._control = control
        self._address = address
        self._drained = drained
        self._cut = asyncio.Event()

    async def start(self) -> str:
        """Return the address once Envoy listens."""
        await self.set_serving(False)
        address = await self._address
        await self._hosted.open_health_port()
        return address

    async def set_serving(self, serving: bool) -> None:
        """Answer health checks with SERVING or NOT_SERVING."""
        await self._hosted.set_serving(serving)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, wait up to ``grace`` seconds for those in flight; the end of the process ends the rest."""
        if not grace:
            self._cut.set()
        await self._hosted.pick_up_calls(grace)
        self._hosted.boundary.refuse_new_calls()
        self._hosted.end_watches()
        self._control.tell("drain")
        # An answer that was given may still be on its way through Envoy, to a caller who reads slowly.
        drained, cut = asyncio.ensure_future(self._drained.wait()), asyncio.ensure_future(self._cut.wait())
        await asyncio.wait({drained, cut}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        cut.cancel()
        await self._hosted.close_health_port()
