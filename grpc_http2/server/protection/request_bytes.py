"""Memory for requests: the bytes that a server holds for one caller, and for all of them."""

from __future__ import annotations

from typing import Protocol

from grpc_http2.server.limits import ServerLimits


class Held(Protocol):
    """Server, as its connections count their requests there."""

    held_bytes: int
    """Request bytes of all connections."""


class RequestBytes:
    """Request bytes that are held for one connection.

    Args:
        server: counts the bytes of all connections.
        limits: limits on the bytes of one connection and of all.
    """

    __slots__ = ("_held", "_limits", "_most", "_server")

    def __init__(self, server: Held, limits: ServerLimits) -> None:
        self._server = server
        self._limits = limits
        self._held = 0
        self._most = max(limits.max_buffered_connection_bytes, 2 * limits.max_message_bytes)

    def hold(self, count: int) -> None:
        """Count ``count`` further bytes as held; a negative ``count`` releases bytes."""
        self._held += count
        self._server.held_bytes += count

    def are_too_many(self) -> bool:
        """Return whether the server holds more than it may, for this caller or for all."""
        limits = self._limits
        return self._held > self._most or self._server.held_bytes > limits.max_buffered_bytes + limits.max_message_bytes
