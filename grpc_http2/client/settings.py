"""Bounds and times of a channel."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from grpc_http2.client.retries import RetryPolicy


@dataclass(frozen=True, slots=True)
class Pings:
    """Signs of life that a silent server is asked for, so that one that hangs is found with calls and without."""

    interval_seconds: float = 1.0
    """The silence after which a ping is sent."""
    timeout_seconds: float = 2.0
    """The silence after a ping that ends the connection."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How connections are encrypted."""

    context: Callable[[], ssl.SSLContext]
    """Returns the context of the next connection, with ALPN ``h2``."""
    server_name: str | None = None
    """The name that the server's certificate must be for; ``None``: the host of the address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """What a channel takes, keeps and waits for."""

    max_message_bytes: int = 64 << 20
    """The largest answer that is taken, opened where it is compressed."""
    max_metadata_bytes: int = 32 << 10
    """The largest block of headers that is taken. One that is four times as large ends the connection."""
    stream_window_bytes: int = 1 << 20
    """The bytes that a server may send ahead of the reader of a stream."""
    connection_window_bytes: int = 1 << 30
    """The bytes that a server may send ahead over all streams: no bound, so that a slow reader stops nobody else."""
    most_streams: int = 10_000
    """The calls under way on a connection at the same time, where the server does not allow fewer."""
    most_waiting: int = 10_000
    """The calls that wait for a connection to one server; further ones are refused."""
    connect_seconds: float = 20.0
    """The time for a connection, its TLS handshake and the server's first words."""
    first_backoff_seconds: float = 0.1
    """The pause after a first attempt to connect that failed. It doubles with each further one."""
    max_backoff_seconds: float = 1.0
    """The longest pause between attempts to connect."""
    pings: Pings | None = None
    """Whether servers are pinged. Those that do not expect it hang up."""
    retries: RetryPolicy | None = None
    """Which failed calls are made again, beside those that no server has seen."""
    health_service: str | None = None
    """The service whose health decides which of several servers get calls; ``None``: they are not asked."""


DEFAULTS: Final = ChannelSettings()
