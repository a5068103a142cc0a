"""The workload of a process: its services, and what belongs to their life."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from prometheus_client.registry import Collector

from grpc_http2.server.http_exchange import Application
from serving.transport.boundary import Boundary
from serving.transport.guards import Guards
from serving.transport.service import Service


@dataclass(frozen=True, slots=True)
class Workload:
    """What a process serves. Built on the event loop that serves it."""

    services: Sequence[Service]
    get_ready: Callable[[], Awaitable[None]]
    """Returns once the services can answer."""
    close: Callable[[], Awaitable[None]]
    on_drain: Callable[[], None] = lambda: None
    """Called when the process has been asked to stop, before anything else."""
    web: Callable[[Boundary], Application] | None = None
    """Makes what answers requests of plain HTTP, behind the boundary it is given, where the transport takes them."""
    guards: Guards = field(default_factory=Guards)
    """What the boundary asks and tells of every call."""
    collectors: Sequence[Collector] = ()
    """What metrics tell of the services."""
