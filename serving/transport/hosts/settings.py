"""The settings of a service that its host reads."""

from __future__ import annotations

from typing import Protocol

from serving.files.material import TlsFiles
from serving.workers.membership import Membership


class HostSettings(Protocol):
    """A part of :class:`~serving.runtime.settings.ServerSettings`, which describes each of them."""

    @property
    def host(self) -> str:
        """Address to listen on."""

    @property
    def port(self) -> int:
        """Port to listen on; 0 takes a free one."""

    @property
    def health_port(self) -> int:
        """Port of health checks alone; 0 for none."""

    @property
    def max_message_bytes(self) -> int:
        """Size of the largest request, in bytes."""

    @property
    def max_in_flight(self) -> int:
        """Number of calls that are served, or wait, at the same time."""

    @property
    def max_streams_per_connection(self) -> int:
        """Number of calls at the same time on a connection."""

    @property
    def max_connections(self) -> int:
        """Number of connections at the same time."""

    @property
    def connection_age_seconds(self) -> float:
        """Age of a connection that is renewed, in seconds."""

    @property
    def default_deadline_seconds(self) -> float:
        """Deadline of calls that come without one, in seconds."""

    @property
    def membership(self) -> Membership | None:
        """Membership of this process among workers; ``None`` in a process that serves alone."""

    def tls(self) -> TlsFiles | None:
        """Return the files of TLS; ``None`` where nothing is encrypted."""
