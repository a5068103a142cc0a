"""The workload of a process: its services and their lifecycle."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from prometheus_client.registry import Collector

from grpc_http2.server.plain_http.http_exchange import Application
from serving.call.closing import close_in_order
from serving.transport.boundary import Boundary
from serving.transport.guards import Guards
from serving.transport.service import Service


@dataclass(frozen=True, slots=True)
class Workload:
    """Services of a process, with their lifecycle. Built on the event loop that serves them."""

    services: Sequence[Service]
    get_ready: Callable[[], Awaitable[None]]
    """Returns once the services can answer."""
    close: Callable[[], Awaitable[None]]
    on_drain: Callable[[], None] = lambda: None
    """Called when a stop is requested, before anything else."""
    web: Callable[[Boundary], Application] | None = None
    """Builds the application that answers plain HTTP requests behind a boundary, on transports that accept them."""
    guards: Guards = field(default_factory=Guards)
    """Guards that the boundary applies to every call."""
    collectors: Sequence[Collector] = ()
    """Collectors of the services' metrics."""

    def closing(self, close: Callable[[], Awaitable[object]]) -> Workload:
        """Return the workload with ``close`` called after its own close, even if that fails."""
        return replace(self, close=partial(close_in_order, self.close, close))
