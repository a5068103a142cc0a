"""The settings of a service that its host reads."""

from __future__ import annotations

from typing import Protocol

from serving.files.material import TlsFiles
from serving.workers.membership import Membership


class HostSettings(Protocol):
    """A part of :class:`~serving.runtime.settings.ServerSettings`, which describes each setting."""

    @property
    def host(self) -> str:
        """Address to listen on."""

    @property
    def port(self) -> int:
        """Port to listen on; 0 takes a free one."""

    @property
    def health_port(self) -> int:
        """Port for health checks only; 0 for none."""

    @property
    def max_message_bytes(self) -> int:
        """Maximum size of a request, in bytes."""

    @property
    def max_in_flight(self) -> int:
        """Maximum number of calls that are served, or wait, at the same time."""

    @property
    def max_streams_per_connection(self) -> int:
        """Maximum number of concurrent calls on a connection."""

    @property
    def max_connections(self) -> int:
        """Maximum number of concurrent connections."""

    @property
    def connection_age_seconds(self) -> float:
        """Age at which a connection is renewed, in seconds."""

    @property
    def default_deadline_seconds(self) -> float:
        """Deadline of calls that arrive without one, in seconds."""

    @property
    def membership(self) -> Membership | None:
        """Membership of this process among workers; ``None`` in a process that serves alone."""

    def tls(self) -> TlsFiles | None:
        """Return the TLS files; ``None`` if nothing is encrypted."""
