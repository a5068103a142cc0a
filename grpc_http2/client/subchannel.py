"""One server of a channel: its connection, made and made again, and the calls that wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from grpc import ChannelConnectivity, StatusCode

from grpc_http2.alarms import Alarm, alarms_of
from grpc_http2.client.connection import Connection
from grpc_http2.client.health import WATCH, HealthWatch
from grpc_http2.client.opening import authority_of, open_connection
from grpc_http2.client.retries import jittered
from grpc_http2.client.settings import ChannelSettings, Tls
from grpc_http2.client.stream import Failure
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


class Assignable(Protocol):
    """A call, as far as it is given to a server."""

    path: str
    """The method."""
    affinity: str | None
    """Calls of one affinity go to one server; those without may go to any."""
    wait_for_ready: bool
    """Whether the call waits where no server can be reached."""
    waits_in: dict[Assignable, None] | None
    """Where the call waits, so that it can leave."""

    def attach(self, connection: Connection, headers: Sequence[Header]) -> None:
        """Begin on a connection, with ``headers`` before those of the call."""

    def attempt_failed(self, failure: Failure) -> None:
        """Take that this attempt has failed."""


class Subchannel:
    """Keeps a connection to one server.

    Its state is gRPC's: IDLE until somebody calls, then CONNECTING, READY, and TRANSIENT_FAILURE from a failure on
    until a connection is ready again, which it goes on trying to make. A server that is watched is ready once its
    service says so, and failed as soon as the service does not.

    Args:
        address: ``host:port``, or ``unix:`` and a path.
        settings: bounds and times.
        tls: encrypts; without it nothing is.
        on_change: is told that the state has changed. Calls that wait for a failed server are for whoever is told.
    """

    def __init__(
        self, address: str, settings: ChannelSettings, tls: Tls | None, on_change: Callable[[Subchannel], None]
    ) -> None:
        self.address = address
        self.state = _IDLE
        self.reason = ""
        """What the last failure was."""
        self.keeps_connected = False
        """Whether a lost connection is made again before there is a call for it."""
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
        """Begin ``call``, or let it wait.

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
        """Return the calls that wait, which wait here no longer."""
        calls = list(self.waiting)
        self.waiting.clear()
        for call in calls:
            call.waits_in = None
        return calls

    def room_made(self) -> None:
        """Let calls begin that wait, as far as there is room."""
        while self.waiting and self.state is _READY and self._connection is not None and self._connection.has_room:
            call = next(iter(self.waiting))
            del self.waiting[call]
            call.waits_in = None
            call.attach(self._connection, self._headers_of(call.path))

    # The connection.

    def connect(self) -> None:
        """Connect, unless that is under way."""
        if self.state is _IDLE:
            # A server that hangs up as soon as it has said hello is not asked in a circle.
            is_young = self._loop.time() - self._opened_at < self._settings.first_backoff_seconds
            self._start_after(self._settings.first_backoff_seconds if is_young else 0.0, self._start)
            self._become(_CONNECTING)

    def watch_health(self, service: str | None) -> None:
        """Be ready only while ``service`` serves; ``None``: whenever there is a connection."""
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
        """Make a new connection for further calls; those under way end on the former."""
        if self._connection is not None:
            self._connection.retire()

    def retire(self) -> None:
        """Take no further call, and close once those that there are have ended."""
        self._stop()
        if self._connection is not None:
            self._connection.retire()

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left of a retired one."""
        return not self._connections and self._connecting is None

    async def close(self) -> None:
        """End all connections, and with them all calls."""
        self._stop()
        for connection in list(self._connections):
            connection.close()
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
        if self._connections:
            await asyncio.wait([connection.closed for connection in self._connections])

    # What connections tell.

    def connection_leaves(self, connection: Connection) -> None:
        """Let the next call connect."""
        if connection is self._connection:
            self._lost(hangs=False)

    def connection_gone(self, connection: Connection, *, hangs: bool) -> None:
        """Let the next call connect, or none where the server hangs."""
        if connection is self._connection:
            self._lost(hangs=hangs)

    # Inside.

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
            self._fail(str(error) or "it does not answer in time")
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
            self._fail("it ends connections as soon as they are made")
        else:
            self._connection = connection
            if self._watched is None:
                self._is_ready()
            else:
                self._begin_watch()

    def _is_ready(self) -> None:
        self._cancel_timer()
        if self._failures:
            log.info("server is back", address=self.address)
        self._failures = 0
        self._become(_READY)
        self.room_made()

    def _lost(self, *, hangs: bool) -> None:
        self._unwatch()
        self._connection = None
        if self.state is _SHUTDOWN:
            return
        if hangs or self.state is _FAILED:
            self._fail("it does not react" if hangs else self.reason)
            return
        self._become(_IDLE)
        if self.waiting or self.keeps_connected:
            self.connect()

    def _fail(self, reason: str, retry: Callable[[], None] | None = None) -> None:
        """Have calls go elsewhere until ``retry``, which connects again, has helped."""
        if self.state is _SHUTDOWN:
            return
        if not self._failures:
            log.warning("server cannot be used", address=self.address, reason=reason)
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
        # What a server does not say within the time of a connection it is not waited for.
        self._start_after(self._settings.connect_seconds, self._is_silent)

    def _take_health(self, serves: bool) -> None:
        if serves:
            self._is_ready()
        else:
            # The watch tells when it is over.
            self._cancel_timer()
            self.reason = "it says that it does not serve"
            self._failures = self._failures or 1
            self._become(_FAILED)

    def _watch_ended(self) -> None:
        self._watch = None
        self._fail("it does not tell its health", self._begin_watch)

    def _is_silent(self) -> None:
        self._unwatch()
        self._fail("it does not tell its health", self._begin_watch)

    def _unwatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _headers_of(self, path: str) -> Sequence[Header]:
        """Return the headers that all calls of a method have."""
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
