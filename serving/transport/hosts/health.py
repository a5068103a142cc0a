"""grpc.health.v1, with watches that end when the service does."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health, health_pb2

# The published types omit the call List.
_messages: Any = health_pb2


class DrainableHealth(health.aio.HealthServicer):
    """The standard servicer, whose watches can be ended.

    A watch is a call that stays in flight forever, and would hold up the drain until its grace ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._watches: set[asyncio.Task[None]] = set()
        self._statuses: dict[str, health_pb2.HealthCheckResponse] = {}
        self._ended = False

    def end_watches(self) -> None:
        """End all watches, including future ones: their callers see the stream end."""
        self._ended = True
        for watch in self._watches:
            watch.cancel()

    async def set(self, service: str, status: Any) -> None:
        """Set the health of a service, and notify those who watch the service."""
        self._statuses[service] = health_pb2.HealthCheckResponse(status=status)
        await super().set(service, status)

    async def List(self, _request: Any, _context: Any) -> Any:
        """Return the health of every service; the standard servicer lacks this call."""
        return _messages.HealthListResponse(statuses=self._statuses)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """Stream the health of a service until the caller disconnects or cancels, or the service ends."""
        watch = asyncio.ensure_future(super().Watch(request, context))
        self._watches.add(watch)
        try:
            if self._ended:
                watch.cancel()
            await watch
        except asyncio.CancelledError:
            watch.cancel()
            if not self._ended:
                raise
        finally:
            self._watches.discard(watch)
