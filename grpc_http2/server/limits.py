"""Limits that a server enforces on its callers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits on messages, connections and time."""

    max_message_bytes: int = 1 << 20
    """Maximum size of a request message, in bytes, compressed or not."""
    max_metadata_bytes: int = 16 << 10
    """Maximum size of a call's metadata, in bytes as HTTP/2 counts header lists; more is RESOURCE_EXHAUSTED."""
    max_streams: int = 1024
    """Maximum number of concurrent calls on one connection."""
    max_connections: int = 16_384
    """Maximum number of concurrent connections; a further one is closed at once."""
    max_handshakes: int = 256
    """Maximum number of concurrent TLS handshakes, of about 100 KiB each; for a further one, the oldest is ended."""
    max_buffered_bytes: int = 48 << 20
    """Maximum request bytes that the server holds for all connections together; further large requests are refused."""
    max_buffered_connection_bytes: int = 16 << 20
    """Maximum request bytes that the server holds for one connection, or two of the largest messages if more."""
    stream_window_bytes: int = 256 << 10
    """Flow-control window of a stream: bytes that a call may send ahead of its reader."""
    connection_window_bytes: int = 2 << 20
    """Flow-control window of a connection: bytes that all its calls may send ahead of their readers."""
    max_unsent_bytes: int = 64 << 10
    """Unsent bytes of a stream of responses above which its writer waits."""
    max_unsent_server_bytes: int = 32 << 20
    """Unsent bytes of all connections above which calls wait on connections with more than ``max_unsent_bytes``."""
    max_unsent_connection_bytes: int = 1 << 20
    """Unsent bytes of a connection above which its further calls wait."""
    max_read_bytes: int = 16 << 10
    """Bytes read from one connection before the other connections have their turn."""
    idle_bytes: int = 256 << 10
    """Burst, in bytes, of unproductive frames (window updates, pings, priorities, tiny data) of a connection."""
    idle_bytes_per_second: int = 32 << 10
    """Rate at which a connection regains ``idle_bytes``, in bytes per second."""
    idle_reads: int = 32
    """Burst of unproductive reads that a connection may cause; each unproductive KiB counts as one more read."""
    idle_reads_per_second: float = 0.1
    """Rate at which a connection regains ``idle_reads``, in reads per second."""
    idle_reads_per_second_of_all: float = 1_000.0
    """Rate of unproductive reads, per second, of all connections that have none left; 128 bytes count as one more."""
    handshake_seconds: float = 10.0
    """Time limit for TLS and for the first bytes of a connection, in seconds."""
    header_seconds: float = 10.0
    """Time limit for the headers of a request over HTTP/1.1, in seconds."""
    request_seconds: float = 60.0
    """Time limit for the request of a call that takes one message, in seconds; the call's deadline may be earlier."""
    keepalive_seconds: float = 30.0
    """Silence of a caller after which the server sends a keepalive ping, in seconds."""
    keepalive_timeout_seconds: float = 10.0
    """Silence after a keepalive ping that ends the connection, in seconds."""
    min_ping_seconds: float = 0.5
    """Interval between pings, in seconds, below which a caller without traffic receives a strike."""
    max_ping_strikes: int = 2
    """Strikes without traffic in between after which a connection that pings too often is ended."""
    connection_age_seconds: float = 1800.0
    """Age, in seconds and varied by up to a tenth, at which a caller is asked to renew its connection."""
    connection_grace_seconds: float = 60.0
    """Time limit for the calls of a connection that is being renewed, in seconds."""
