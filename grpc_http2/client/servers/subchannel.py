"""One server of a channel: its connection, re-established when lost, and the calls that wait for the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from grpc import ChannelConnectivity, StatusCode

from grpc_http2.alarms import Alarm, alarms_of
from grpc_http2.client.calls.retries import jittered
from grpc_http2.client.calls.stream import Assignable, Failure
from grpc_http2.client.connection import Connection
from grpc_http2.client.opening import authority_of, open_connection
from grpc_http2.client.servers.health import WATCH, HealthWatch
from grpc_http2.client.settings import ChannelSettings, Tls
from grpc_http2.engine import EngineError
from grpc_http2.log import log
from grpc_http2.wire import ENCODINGS, Header

_USER_AGENT: Final = b"grpc-python-http2"
_IDLE, _CONNECTING, _READY, _FAILED, _SHUTDOWN = (
    ChannelConnectivity.IDLE,
    ChannelConnectivity.CONNECTING,
    ChannelConnectivity.READY,
    ChannelConnectivity.TRANSIENT_FAILURE,
    ChannelConnectivity.SHUTDOWN,
)


class Subchannel:
    """Keeps a connection to one server.

    The state is gRPC's connectivity state: IDLE until the first call, then CONNECTING and READY, and TRANSIENT_FAILURE
    from a failure until a connection is ready again, while the subchannel keeps trying to connect. A server whose
    health is watched is ready once its service reports that it is serving, and failed as soon as the service does not.

    Args:
        address: ``host:port``, or ``unix:`` and a path.
        settings: limits and timings.
        tls: TLS settings; without them, connections are not encrypted.
        on_change: called when the state has changed. The callee takes over the calls that wait for a failed server.
    """

    def __init__(
        self, address: str, settings: ChannelSettings, tls: Tls | None, on_change: Callable[[Subchannel], None]
    ) -> None:
        self.address = address
        self.state = _IDLE
        self.reason = ""
        """Reason for the last failure."""
        self.keeps_connected = False
        """Whether a lost connection is re-established before a call needs it."""
        self.waiting: dict[Assignable, None] = {}
        self._settings = settings
        self._tls = tls
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._alarms = alarms_of(self._loop)
        self._headers: dict[str, Sequence[Header]] = {}
        self._connection: Connection | None = None
        self._connections: set[Connection] = set()
        self._connecting: asyncio.Task[None] | None = None
        self._timer: Alarm | None = None
        self._watched: str | None = None
        self._watch: HealthWatch | None = None
        self._failures = 0
        self._opened_at = 0.0

    # Calls.

    def take(self, call: Assignable) -> None:
        """Start ``call`` or queue it; fail it if the queue is full.

        REQUIRES: the server has not failed.
        """
        connection = self._connection
        if connection is not None and self.state is _READY and not self.waiting and connection.has_room:
            call.attach(connection, self._headers_of(call.path))
        elif len(self.waiting) >= self._settings.most_waiting:
            call.attempt_failed(Failure(StatusCode.RESOURCE_EXHAUSTED, "too many calls wait for the server"))
        else:
            self.waiting[call] = None
            call.waits_in = self.waiting
            self.connect()

    def taken_back(self) -> Sequence[Assignable]:
        """Remove the waiting calls from the queue, and return them."""
        calls = list(self.waiting)
        self.waiting.clear()
        for call in calls:
            call.waits_in = None
        return calls

    def room_made(self) -> None:
        """Start waiting calls while the connection has room."""
        while self.waiting and self.state is _READY and self._connection is not None and self._connection.has_room:
            call = next(iter(self.waiting))
            del self.waiting[call]
            call.waits_in = None
            call.attach(self._connection, self._headers_of(call.path))

    # The connection.

    def connect(self) -> None:
        """Connect, unless the subchannel is connecting already."""
        if self.state is _IDLE:
            # A server that closes each connection right after opening must not cause a tight loop of attempts.
            is_young = self._loop.time() - self._opened_at < self._settings.first_backoff_seconds
            self._start_after(self._settings.first_backoff_seconds if is_young else 0.0, self._start)
            self._become(_CONNECTING)

    def watch_health(self, service: str | None) -> None:
        """Be ready only while ``service`` is serving; ``None``: whenever there is a connection."""
        if service == self._watched:
            return
        self._watched = service
        self._unwatch()
        if self._connection is not None:
            if service is None:
                self._is_ready()
            else:
                self._begin_watch()

    def renew(self) -> None:
        """Open a new connection for further calls; active calls finish on the old one."""
        if self._connection is not None:
            self._connection.retire()

    def retire(self) -> None:
        """Accept no further calls, and close once the existing ones have ended."""
        self._stop()
        if self._connection is not None:
            self._connection.retire()

    @property
    def is_gone(self) -> bool:
        """Whether a retired subchannel has no connections left."""
        return not self._connections and self._connecting is None

    async def close(self) -> None:
        """Close all connections, which ends all calls."""
        self._stop()
        for connection in list(self._connections):
            connection.close()
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
        if self._connections:
            await asyncio.wait([connection.closed for connection in self._connections])

    # Notifications from connections.

    def connection_leaves(self, connection: Connection) -> None:
        """Have the next call connect."""
        if connection is self._connection:
            self._lost(hangs=False)

    def connection_gone(self, connection: Connection, *, hangs: bool) -> None:
        """Have the next call connect, or no call if the server hangs."""
        if connection is self._connection:
            self._lost(hangs=hangs)

    # Internal.

    def _become(self, state: ChannelConnectivity) -> None:
        if state is not self.state and self.state is not _SHUTDOWN:
            self.state = state
            self._on_change(self)

    def _start_after(self, seconds: float, act: Callable[[], None]) -> None:
        self._cancel_timer()
        if seconds:
            self._timer = self._alarms.after(seconds, act)
        else:
            act()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        if self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            connection = await open_connection(self.address, self, self._settings, self._tls)
        except (OSError, UnicodeError) as error:
            self._fail(str(error) or "it did not answer in time")
        else:
            self._opened(connection)
        finally:
            self._connecting = None

    def _opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        connection.closed.add_done_callback(lambda _: self._connections.discard(connection))
        self._opened_at = self._loop.time()
        if self.state is _SHUTDOWN:
            connection.close()
        elif connection.is_leaving:
            self._fail("it closes connections as soon as they are opened")
        else:
            self._connection = connection
            if self._watched is None:
                self._is_ready()
            else:
                self._begin_watch()

    def _is_ready(self) -> None:
        self._cancel_timer()
        if self._failures:
            log.info("server is available again", address=self.address)
        self._failures = 0
        self._become(_READY)
        self.room_made()

    def _lost(self, *, hangs: bool) -> None:
        self._unwatch()
        self._connection = None
        if self.state is _SHUTDOWN:
            return
        if hangs or self.state is _FAILED:
            self._fail("it does not respond" if hangs else self.reason)
            return
        self._become(_IDLE)
        if self.waiting or self.keeps_connected:
            self.connect()

    def _fail(self, reason: str, retry: Callable[[], None] | None = None) -> None:
        """Send calls elsewhere until ``retry``, which by default connects again, has succeeded."""
        if self.state is _SHUTDOWN:
            return
        if not self._failures:
            log.warning("server is unavailable", address=self.address, reason=reason)
        pause = min(self._settings.first_backoff_seconds * 2**self._failures, self._settings.max_backoff_seconds)
        self._failures = min(self._failures + 1, 30)
        self.reason = reason
        self._start_after(jittered(pause), retry or self._start)
        self._become(_FAILED)

    def _stop(self) -> None:
        self._become(_SHUTDOWN)
        self._cancel_timer()
        self._unwatch()
        if self._connecting is not None:
            self._connecting.cancel()

    # Health.

    def _begin_watch(self) -> None:
        connection, service = self._connection, self._watched
        if connection is None or service is None or self._watch is not None:
            return
        try:
            self._watch = HealthWatch(
                connection, self._headers_of(WATCH), service, self._take_health, self._watch_ended
            )
        except EngineError:
            connection.retire()
            return
        # The first health report is subject to the same timeout as a connection.
        self._start_after(self._settings.connect_seconds, self._is_silent)

    def _take_health(self, serves: bool) -> None:
        if serves:
            self._is_ready()
        else:
            # The watch reports the end of this state.
            self._cancel_timer()
            self.reason = "it reports that it is not serving"
            self._failures = self._failures or 1
            self._become(_FAILED)

    def _watch_ended(self) -> None:
        self._watch = None
        self._fail("it does not report its health", self._begin_watch)

    def _is_silent(self) -> None:
        self._unwatch()
        self._fail("it does not report its health", self._begin_watch)

    def _unwatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _headers_of(self, path: str) -> Sequence[Header]:
        """Return the headers shared by all calls of a method."""
        headers = self._headers.get(path)
        if headers is None:
            headers = self._headers[path] = (
                (b":method", b"POST"),
                (b":scheme", b"http" if self._tls is None else b"https"),
                (b":path", path.encode()),
                (b":authority", authority_of(self.address, self._tls).encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", _USER_AGENT),
                (b"grpc-accept-encoding", ENCODINGS),
            )
        return headers
