"""What happens to a connection by the clock: signs of life, its renewal, and its end."""

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
    """A connection, as far as its lifetime goes."""

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way."""

    @property
    def is_open(self) -> bool:
        """Whether there is a transport."""

    @property
    def is_closing(self) -> bool:
        """Whether the transport is there still, and takes nothing more."""

    def write_soon(self) -> None:
        """Write what there is for the caller in this turn."""

    def close(self) -> None:
        """Write what there is to write, and close."""

    def abort(self, reason: str) -> None:
        """Close at once."""


class Lifetime:
    """The life of one connection.

    The connection is given with each call: were it known here, both would stay until the garbage collector comes.

    Args:
        engine: of the connection.
        limits: times.
        alarms: of the event loop.
        now: in seconds of ``time.monotonic()``.
    """

    __slots__ = (
        "_alarms",
        "_asked_at",
        "_engine",
        "_leave_at",
        "_limits",
        "_renew_at",
        "heard_at",
        "said_goodbye",
    )

    def __init__(self, engine: Connection, limits: ServerLimits, alarms: Alarms, now: float) -> None:
        self._engine = engine
        self._limits = limits
        self._alarms = alarms
        self.heard_at = now
        """When the caller last sent something, in seconds of ``time.monotonic()``."""
        self.said_goodbye = False
        """Whether the caller was told which calls are the last."""
        self._asked_at: float | None = None
        self._renew_at = now + limits.connection_age_seconds * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load
        self._leave_at: float | None = None

    def look(self, connection: Living, now: float) -> None:
        """Do what is due at ``now``, in seconds of ``time.monotonic()``."""
        if self._leave_at is not None:
            if now >= self._leave_at and connection.is_closing:
                connection.abort("the caller does not read what it is sent")
            elif now >= self._leave_at or (self.said_goodbye and connection.is_idle):
                connection.close()
        elif now >= self._renew_at:
            self.say_goodbye(connection, self._limits.connection_grace_seconds)
        if self._asked_at is not None:
            if self.heard_at >= self._asked_at:
                self._asked_at = None
            elif now - self._asked_at >= self._limits.keepalive_timeout_seconds:
                connection.abort("the caller gives no sign of life")
        elif now - self.heard_at >= self._limits.keepalive_seconds:
            self._asked_at = now
            self._ping(connection, _KEEPALIVE)

    def say_goodbye(self, connection: Living, grace: float) -> None:
        """Have the caller go elsewhere with its next calls; those that are under way have ``grace`` seconds.

        First a notice, so that calls which are on their way are served too; once it was heard, the last word.
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
        # A caller that answers no ping hears the last word all the same.
        self._alarms.after(min(_FAREWELL_SECONDS, grace), self._say_last_word, connection)

    def ping_answered(self, connection: Living, data: bytes) -> None:
        """Take in that the caller has answered a ping."""
        if data == _FAREWELL:
            self._say_last_word(connection)

    def closes(self) -> None:
        """End a transport that is being closed, in a moment: a caller that does not read would keep it for ever."""
        farewell = time.monotonic() + _FAREWELL_SECONDS
        self._leave_at = farewell if self._leave_at is None else min(farewell, self._leave_at)

    def _say_last_word(self, connection: Living) -> None:
        if self.said_goodbye or not connection.is_open:
            return
        self.said_goodbye = True
        try:
            self._engine.send_goaway(ErrorCode.NO_ERROR)
        except EngineError:
            connection.close()
            return
        # Not at once: requests may have come in the same read, and are still to be opened.
        connection.write_soon()

    def _ping(self, connection: Living, data: bytes) -> None:
        try:
            self._engine.ping(data)
        except EngineError:
            return
        connection.write_soon()
