"""A gRPC service as a host registers it: name, registration of the servicer, and rights that its methods require."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from serving.call.identity import Requirement

Handlers = Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]


class Registry(Protocol):
    """The two methods that generated ``add_…Servicer_to_server`` functions call on a server."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Register handlers that look up a method by its name."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Handlers) -> None:
        """Register the same handlers as a table of one service's methods."""


@dataclass(frozen=True, slots=True)
class Service:
    """One gRPC service."""

    name: str
    """Full name, such as ``prediction.Predictor``."""
    register: Callable[[Registry], None]
    rights: Mapping[str, Requirement] = field(default_factory=dict)
    """Right that each method requires, by name. If access is configured, a method that is missing here is denied."""


def service(
    name: str, add_to_server: Callable[..., None], servicer: object, rights: Mapping[str, Requirement] | None = None
) -> Service:
    """Return the service ``name`` from its generated ``add_…Servicer_to_server`` and its servicer."""
    return Service(name, lambda registry: add_to_server(servicer, registry), rights or {})
