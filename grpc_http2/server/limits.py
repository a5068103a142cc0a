"""What a server takes of its callers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds on messages, connections and time."""

    max_message_bytes: int = 1 << 20
    """Size of the largest request message, in bytes, compressed or not."""
    max_metadata_bytes: int = 16 << 10
    """Size of a call's metadata, in bytes as HTTP/2 counts header lists; a call with more ends RESOURCE_EXHAUSTED."""
    max_streams: int = 1024
    """Calls at the same time on one connection."""
    max_connections: int = 16_384
    """Connections at the same time; a further one is closed at once."""
    max_handshakes: int = 256
    """TLS handshakes at the same time, of about 100 KiB each; for a further one the oldest is ended."""
    max_buffered_bytes: int = 48 << 20
    """Bytes of requests that the server holds for all connections together; further large ones are refused."""
    max_buffered_connection_bytes: int = 16 << 20
    """Bytes of requests that the server holds for one connection, or two of the largest messages if that is more."""
    stream_window_bytes: int = 256 << 10
    """Bytes that a call may send ahead of its reader."""
    connection_window_bytes: int = 2 << 20
    """Bytes that all calls of one connection may send ahead of their readers."""
    max_unsent_bytes: int = 64 << 10
    """Unsent bytes of a stream of responses, above which its writer waits."""
    max_unsent_server_bytes: int = 32 << 20
    """Unsent bytes of all connections, above which calls of those that have ``max_unsent_bytes`` wait."""
    max_unsent_connection_bytes: int = 1 << 20
    """Unsent bytes of a connection, above which its further calls wait."""
    max_read_bytes: int = 16 << 10
    """Bytes read from one connection before the others have their turn."""
    idle_bytes: int = 256 << 10
    """Bytes of frames without use (window updates, pings, priorities, tiny data) that a connection may send at once."""
    idle_bytes_per_second: int = 32 << 10
    """Rate at which a connection earns these bytes back, in bytes per second."""
    idle_reads: int = 32
    """Reads without use that a connection may cause at once; each KiB without use counts for one more."""
    idle_reads_per_second: float = 0.1
    """Rate at which a connection earns these reads back with time."""
    idle_reads_per_second_of_all: float = 1_000.0
    """Rate of reads without use of all connections together that have none left; 128 bytes count for one more."""
    handshake_seconds: float = 10.0
    """Time for TLS and for the first bytes of a connection, in seconds."""
    request_seconds: float = 60.0
    """Time for the request of a call that takes one message, in seconds; its deadline may be sooner."""
    keepalive_seconds: float = 30.0
    """Silence of a caller, in seconds, after which the server asks for a sign of life."""
    keepalive_timeout_seconds: float = 10.0
    """Time for that sign of life, in seconds."""
    min_ping_seconds: float = 0.5
    """Interval between pings, in seconds, below which a caller without traffic is warned."""
    max_ping_strikes: int = 2
    """Warnings, each in silence, after which a connection that pings too often is ended."""
    connection_age_seconds: float = 1800.0
    """Age, in seconds and give or take a tenth, at which a connection is asked to be renewed."""
    connection_grace_seconds: float = 60.0
    """Time for the calls of a connection that is being renewed, in seconds."""
