"""grpc.health.v1, with watches that end when the service does."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health, health_pb2

# The published types leave the call List out.
_messages: Any = health_pb2


class DrainableHealth(health.aio.HealthServicer):
    """The standard servicer. A watch is a call in flight for ever, and would hold up the drain until its grace ends."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: set[asyncio.Task[None]] = set()
        self._statuses: dict[str, health_pb2.HealthCheckResponse] = {}
        self._ended = False

    def end_watches(self) -> None:
        """End all watches, and those to come: their callers see the stream end."""
        self._ended = True
        for watch in self._watches:
            watch.cancel()

    async def set(self, service: str, status: Any) -> None:
        """Set the health of a service, and tell those who watch it."""
        self._statuses[service] = health_pb2.HealthCheckResponse(status=status)
        await super().set(service, status)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return the health of every service; the standard servicer does not know this call."""
        del request, context
        return _messages.HealthListResponse(statuses=self._statuses)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        """Stream the health of a service until the caller leaves or the service ends."""
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
