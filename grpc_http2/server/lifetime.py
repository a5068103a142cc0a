"""Time limits of a connection: keepalive, renewal, and shutdown."""

from __future__ import annotations

import random
import time
from typing import Final, Protocol

from grpc_http2.alarms import Alarms
from grpc_http2.engine import Connection, EngineError, ErrorCode
from grpc_http2.server.limits import ServerLimits

_FAREWELL_SECONDS: Final = 1.0
_KEEPALIVE: Final = b"keepaliv"
_FAREWELL: Final = b"farewell"


class Living(Protocol):
    """Connection, as its lifetime sees it."""

    @property
    def is_idle(self) -> bool:
        """Whether no call is active."""

    @property
    def is_open(self) -> bool:
        """Whether the connection has a transport."""

    @property
    def is_closing(self) -> bool:
        """Whether the transport still exists, but is closing."""

    def write_soon(self) -> None:
        """Write pending data to the caller in this turn."""

    def close(self) -> None:
        """Write pending data, and close the connection."""

    def abort(self, reason: str) -> None:
        """Close the connection at once."""


class Lifetime:
    """Lifetime of one connection.

    The connection is passed with each call: a reference kept here would form a cycle that keeps both objects until the
    garbage collector runs.

    Args:
        engine: engine of the connection.
        limits: limits that define the times.
        alarms: alarms of the event loop.
        now: current time, in seconds of ``time.monotonic()``.
    """

    __slots__ = (
        "_alarms",
        "_engine",
        "_leave_at",
        "_limits",
        "_pinged_at",
        "_renew_at",
        "heard_at",
        "sent_goaway",
    )

    def __init__(self, engine: Connection, limits: ServerLimits, alarms: Alarms, now: float) -> None:
        self._engine = engine
        self._limits = limits
        self._alarms = alarms
        self.heard_at = now
        """Time at which the caller last sent something, in seconds of ``time.monotonic()``."""
        self.sent_goaway = False
        """Whether the final GOAWAY was sent, which notifies the caller which calls are the last."""
        self._pinged_at: float | None = None
        self._renew_at = now + limits.connection_age_seconds * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load
        self._leave_at: float | None = None

    def look(self, connection: Living, now: float) -> None:
        """Perform what is due at ``now``, in seconds of ``time.monotonic()``."""
        if self._leave_at is not None:
            if now >= self._leave_at and connection.is_closing:
                connection.abort("the caller does not read its answers")
            elif now >= self._leave_at or (self.sent_goaway and connection.is_idle):
                connection.close()
        elif now >= self._renew_at:
            self.drain(connection, self._limits.connection_grace_seconds)
        if self._pinged_at is not None:
            if self.heard_at >= self._pinged_at:
                self._pinged_at = None
            elif now - self._pinged_at >= self._limits.keepalive_timeout_seconds:
                connection.abort("the caller does not respond to pings")
        elif now - self.heard_at >= self._limits.keepalive_seconds:
            self._pinged_at = now
            self._ping(connection, _KEEPALIVE)

    def drain(self, connection: Living, grace: float) -> None:
        """Drain the connection: the caller's next calls go elsewhere; active calls have ``grace`` seconds.

        A shutdown notice is sent first, so that calls which are on their way are served too. The final GOAWAY follows
        once the caller has received the notice.
        """
        if not connection.is_open or self._leave_at is not None:
            return
        self._leave_at = time.monotonic() + grace
        try:
            self._engine.send_shutdown_notice()
        except EngineError:
            connection.close()
            return
        self._ping(connection, _FAREWELL)
        # A caller that does not answer the ping is sent the final GOAWAY nevertheless.
        self._alarms.after(min(_FAREWELL_SECONDS, grace), self._send_goaway, connection)

    def ping_answered(self, connection: Living, data: bytes) -> None:
        """Handle the answer to a ping."""
        if data == _FAREWELL:
            self._send_goaway(connection)

    def closes(self) -> None:
        """Limit the time for closing the transport: a caller that does not read would keep the transport forever."""
        farewell = time.monotonic() + _FAREWELL_SECONDS
        self._leave_at = farewell if self._leave_at is None else min(farewell, self._leave_at)

    def _send_goaway(self, connection: Living) -> None:
        if self.sent_goaway or not connection.is_open:
            return
        self.sent_goaway = True
        try:
            self._engine.send_goaway(ErrorCode.NO_ERROR)
        except EngineError:
            connection.close()
            return
        # Not written at once: requests from the same read may still have to be opened.
        connection.write_soon()

    def _ping(self, connection: Living, data: bytes) -> None:
        try:
            self._engine.ping(data)
        except EngineError:
            return
        connection.write_soon()
