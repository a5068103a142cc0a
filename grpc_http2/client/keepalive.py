"""Keepalive of a connection: pings that a silent server must answer."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from grpc_http2.alarms import Alarm, Alarms
from grpc_http2.client.settings import Pings
from grpc_http2.engine import Connection, EngineError
from grpc_http2.turn import Turn, Writer

# uvloop runs timers before it reads sockets: after a pause of this process, there may be unread data from the peer.
_RECHECK_SECONDS: Final = 0.02


class Keepalive:
    """Keepalive of one connection, which is passed with each call: a reference kept here would form a cycle.

    Args:
        engine: engine of the connection.
        pings: times of the pings; ``None``: no pings.
        turn: writes the pings.
        alarms: alarms of the event loop.
    """

    __slots__ = ("_alarm", "_alarms", "_engine", "_loop", "_pinged_at", "_pings", "_turn", "hangs", "read_at")

    def __init__(self, engine: Connection, pings: Pings | None, turn: Turn, alarms: Alarms) -> None:
        self._engine = engine
        self._pings = pings
        self._turn = turn
        self._alarms = alarms
        self._loop = alarms.loop
        self._pinged_at = 0.0
        self._alarm: Alarm | None = None
        self.read_at = 0.0
        """Time at which the server last sent something, in seconds of the event loop."""
        self.hangs = False
        """Whether the server did not answer a ping."""

    def begin(self, connection: Writer) -> None:
        """Watch a connection that is open."""
        self.read_at = self._loop.time()
        if self._pings is not None:
            self._alarm = self._alarms.after(self._pings.interval_seconds, self._check, connection, self._pings)

    def end(self) -> None:
        """Stop watching."""
        if self._alarm is not None:
            self._alarm.cancel()

    def _check(self, connection: Writer, pings: Pings) -> None:
        now = self._loop.time()
        silent = now - self.read_at
        if silent < pings.interval_seconds:
            self._alarm = self._alarms.after(pings.interval_seconds - silent, self._check, connection, pings)
            return
        self._pinged_at = now
        with suppress(EngineError):
            self._engine.ping()
        self._turn.write(connection)
        self._alarm = self._alarms.after(pings.timeout_seconds, self._recheck_soon, connection, pings)

    def _recheck_soon(self, connection: Writer, pings: Pings) -> None:
        self._alarm = self._alarms.after(_RECHECK_SECONDS, self._recheck, connection, pings)

    def _recheck(self, connection: Writer, pings: Pings) -> None:
        # Equal times mean an answer: the clock may not have advanced in between, and the ping followed a silence.
        if self.read_at >= self._pinged_at:
            self._check(connection, pings)
            return
        self.hangs = True
        connection.abort("the server does not respond")
