"""Limits and timings of a channel."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from grpc_http2.client.calls.retries import RetryPolicy


@dataclass(frozen=True, slots=True)
class Pings:
    """Keepalive pings to a silent server, which detect a server that hangs, with and without active calls."""

    interval_seconds: float = 1.0
    """Silence after which a ping is sent, in seconds."""
    timeout_seconds: float = 2.0
    """Silence after a ping that ends the connection, in seconds."""


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS settings of connections."""

    context: Callable[[], ssl.SSLContext]
    """Function that returns the context of the next connection, with ALPN ``h2``."""
    server_name: str | None = None
    """Name that the server's certificate must match; ``None``: the host of the address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """Limits, timeouts and policies of a channel."""

    max_message_bytes: int = 64 << 20
    """Largest response message that is accepted, after decompression, in bytes."""
    max_metadata_bytes: int = 32 << 10
    """Largest header block that is accepted, in bytes. A block four times as large ends the connection."""
    stream_window_bytes: int = 1 << 20
    """Flow-control window of a stream: bytes that a server may send ahead of the reader."""
    connection_window_bytes: int = 1 << 30
    """Flow-control window of a connection, in bytes: effectively unlimited, so that a slow reader blocks no other."""
    most_streams: int = 10_000
    """Maximum number of concurrent calls on a connection, unless the server allows fewer."""
    most_waiting: int = 10_000
    """Maximum number of calls that wait for a connection to one server; further ones are refused."""
    connect_seconds: float = 20.0
    """Timeout for a connection, its TLS handshake and the server's SETTINGS, in seconds."""
    first_backoff_seconds: float = 0.1
    """Pause after the first failed attempt to connect, in seconds. The pause doubles with each further failure."""
    max_backoff_seconds: float = 1.0
    """Longest pause between attempts to connect, in seconds."""
    pings: Pings | None = None
    """Keepalive pings; ``None``: servers are not pinged. Servers that do not expect pings close the connection."""
    retries: RetryPolicy | None = None
    """Policy for retries of failed calls, in addition to the retries of calls that no server has seen."""
    health_service: str | None = None
    """Service whose health decides which of several servers receive calls; ``None``: health is not watched."""


DEFAULTS: Final = ChannelSettings()
