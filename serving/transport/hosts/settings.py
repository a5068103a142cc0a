"""The settings of a service that its host reads."""

from __future__ import annotations

from typing import Protocol

from serving.files.material import TlsFiles
from serving.workers.membership import Membership


class HostSettings(Protocol):
    """A part of :class:`~serving.runtime.settings.ServerSettings`, which describes each setting."""

    host: str
    """Address to listen on."""
    port: int
    """Port to listen on; 0 takes a free one."""
    health_port: int
    """Port for health checks only; 0 for none."""
    max_message_bytes: int
    """Maximum size of a request, in bytes."""
    max_in_flight: int
    """Maximum number of calls that are served, or wait, at the same time."""
    max_streams_per_connection: int
    """Maximum number of concurrent calls on a connection."""
    max_connections: int
    """Maximum number of concurrent connections."""
    connection_age_seconds: float
    """Age at which a connection is renewed, in seconds."""
    default_deadline_seconds: float
    """Deadline of calls that arrive without one, in seconds."""

    @property
    def membership(self) -> Membership | None:
        """Membership of this process among workers; ``None`` in a process that serves alone."""

    def tls(self) -> TlsFiles | None:
        """Return the TLS files; ``None`` if nothing is encrypted."""
