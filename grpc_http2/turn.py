"""One turn of the event loop: calls that arrive together are served together, and written together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from grpc_http2.alarms import alarms_of
from grpc_http2.log import log


class Method(Protocol):
    """Method that serves calls."""

    def serve(self, call: Any) -> None:
        """Answer the call, now or later."""


class TurnCall(Protocol):
    """Call that arrives in a turn."""

    ended: bool
    """Whether nothing is left to do for the call."""

    @property
    def method(self) -> Method:
        """Method that serves the call."""

    def fault(self, error: Exception) -> None:
        """End the call, whose method failed with ``error``."""

    def watch_deadline(self) -> None:
        """Watch the deadline of a call that is not answered at once."""


class Writer(Protocol):
    """Connection, on either side."""

    def flush(self) -> None:
        """Write pending data to the peer."""

    def abort(self, reason: str) -> None:
        """End the connection at once."""


class Turn:
    """Calls of the current turn, work to do once all of them have been served, and connections with data to write.

    Requests arrive in bunches: one read yields all requests of a connection, and one turn of the loop those of all
    connections. Work that is cheaper in bulk (a batch, one write for many responses) waits for the end of the turn,
    which is a fraction of a millisecond away, and not for a timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: list[TurnCall] = []
        self._at_end: list[Callable[[], object]] = []
        self._unwritten: dict[Writer, None] = {}
        self._is_scheduled = False
        # Most calls are answered before an alarm could ring: an alarm is set only for calls still active by then.
        self._alarms = alarms_of(loop)
        self._young: list[TurnCall] = []
        self._is_growing = False

    @classmethod
    def of_running_loop(cls) -> Turn:
        """Return the turn object of the running event loop."""
        loop = asyncio.get_running_loop()
        turn = _turns.get(loop)
        if turn is None:
            turn = _turns[loop] = cls(loop)
        return turn

    def serve(self, call: TurnCall) -> None:
        """Serve ``call`` in this turn."""
        self._calls.append(call)
        if not self._is_scheduled:
            self._schedule()

    def at_end(self, act: Callable[[], object]) -> None:
        """Call ``act()`` once every call of this turn has been served."""
        self._at_end.append(act)
        if not self._is_scheduled:
            self._schedule()

    def write(self, connection: Writer) -> None:
        """Write the pending data of ``connection`` at the end of this turn."""
        self._unwritten[connection] = None
        if not self._is_scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._is_scheduled = True
        self._loop.call_soon(self._run)

    def _run(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            if not call.ended:
                try:
                    call.method.serve(call)
                except Exception as error:  # noqa: BLE001 - the call logs it
                    call.fault(error)
        while self._at_end:
            acts, self._at_end = self._at_end, []
            for act in acts:
                _do(act)
        self._young += [call for call in calls if not call.ended]
        if self._young and not self._is_growing:
            self._is_growing = True
            self._alarms.after(0.0, self._grow)
        unwritten, self._unwritten = self._unwritten, {}
        for connection in unwritten:
            _flush(connection)
        self._is_scheduled = False
        if self._calls or self._at_end or self._unwritten:
            self._schedule()

    def _grow(self) -> None:
        self._is_growing = False
        young, self._young = self._young, []
        for call in young:
            if not call.ended:
                call.watch_deadline()


def _do(act: Callable[[], object]) -> None:
    try:
        act()
    except Exception:
        # A batch that fails must not affect the other batches of the turn.
        log.exception("work at the end of a turn failed")


def _flush(connection: Writer) -> None:
    try:
        connection.flush()
    except Exception:
        # A connection that fails must not affect the other connections.
        log.exception("connection failed")
        connection.abort("the connection failed")


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turn] = WeakKeyDictionary()
