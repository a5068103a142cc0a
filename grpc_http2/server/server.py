"""The server: hosts grpcio's generated servicers on HTTP/2, and an ASGI application on HTTP/1.1, on one port."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Final

import grpc
from grpc import StatusCode

from grpc_http2.alarms import Alarms, alarms_of
from grpc_http2.server.calls.call import CallHandler, ServerCall
from grpc_http2.server.calls.methods import HandlerMethod, Method, RpcHandler, ServicerMethod
from grpc_http2.server.calls.request_head import RequestHead
from grpc_http2.server.connection import ServerConnection
from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.listening import Dealing, Listener, bound_sockets
from grpc_http2.server.opening import Opening
from grpc_http2.server.plain_http.http1 import Http1
from grpc_http2.server.plain_http.http_exchange import Application, HttpExchange, refuse
from grpc_http2.server.protection.handshakes import Handshakes
from grpc_http2.server.protection.idle_reads import IdleReadQueue
from grpc_http2.server.streams import ServerStream
from grpc_http2.turn import Turn
from grpc_http2.wire import Header, WireError

_LOOK_SECONDS: Final = 0.5
_LAST_OPENING_SECONDS: Final = 1.0


class _CallDetails(grpc.HandlerCallDetails):
    """Details of a call, as passed to generic handlers."""

    def __init__(self, call: ServerCall) -> None:
        self.method = call.path
        self.invocation_metadata = call.metadata()


class _Unrouted:
    """Method of a call that is not routed yet."""

    streams_requests: Final = False

    def open(self, call: ServerCall) -> None:
        """Do nothing; never called."""

    def serve(self, call: ServerCall) -> None:
        """Refuse the call: no method was found."""
        call.fail(StatusCode.UNIMPLEMENTED, "Method not found!")


_UNROUTED: Final = _Unrouted()


class Server:
    """Server, bound to the event loop on which it is created. Generated ``add_…Servicer_to_server`` functions take one.

    Args:
        limits: limits that the server enforces on its callers.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self.turn = Turn.of_running_loop()
        self.alarms: Alarms = alarms_of(asyncio.get_running_loop())
        self.buffer = memoryview(bytearray(limits.max_read_bytes))
        """Read buffer of all connections: its contents are processed before another connection reads."""
        self.unsent_bytes = 0
        """Response bytes that callers have not read."""
        self.idle_reads = IdleReadQueue(limits)
        """Schedule for reading connections that cause unproductive reads again and again."""
        self.held_bytes = 0
        """Bytes of incomplete requests."""
        self.opening: set[Opening] = set()
        """Connections whose protocol is not known yet."""
        self.handshakes = Handshakes(limits.max_handshakes)
        self.introductions: set[asyncio.Task[None]] = set()
        """Tasks that give new connections their transports."""
        self.http1 = Http1(refuse, self.fewer, limits.header_seconds)
        self._application: Application = refuse
        self._connections: set[ServerConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._methods: dict[bytes, Method] = {}
        self._generic: list[grpc.GenericRpcHandler] = []
        self._listeners: list[Listener] = []
        self._dealt: Listener | None = None
        self._dealing: Dealing | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._gone: asyncio.Event | None = None
        self._leave_at: float | None = None

    # Methods and applications.

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add handlers that look a method up by its name."""
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, RpcHandler]) -> None:
        """Add the methods of one service: coroutines and asynchronous generators."""
        for name, handler in method_handlers.items():
            self._methods[f"/{service_name}/{name}".encode()] = ServicerMethod(handler, self._tasks)

    def add_call_handler(self, path: str, handler: CallHandler) -> None:
        """Add a method with one message each way that is served by a plain function, without a task.

        Args:
            path: ``/package.Service/Method``.
            handler: called with every call, which it ends now or later.
        """
        self._methods[path.encode()] = HandlerMethod(handler)

    def serve_http(self, application: Application) -> None:
        """Have ``application`` answer plain HTTP, on HTTP/1.1 and HTTP/2, which is otherwise refused with 415."""
        self._application = application
        self.http1 = Http1(application, self.fewer, self.limits.header_seconds)

    # Lifecycle.

    async def listen(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        reuse_port: bool = False,
        dealing: Dealing | None = None,
    ) -> int:
        """Accept connections; return the port.

        Args:
            host: name or address.
            port: port number; 0 selects a free port.
            tls: TLS context of the connections; its ALPN protocols are set here.
            reuse_port: whether other processes may listen on the same port, and share its connections.
            dealing: decides whether a connection is served here or by another process; without it, always here.

        Raises:
            OSError: the address is not available.
        """
        sockets = await bound_sockets(host, port, reuse_port=reuse_port)
        listener = Listener(sockets, self._open_connection, _prepared(tls), dealing)
        listener.begin()
        if dealing is not None:
            self._dealt, self._dealing = listener, dealing
        self._listeners.append(listener)
        self._look()
        return listener.port

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that another process has accepted, like those that this server accepts and keeps."""
        if self._dealt is None:
            raise ValueError("a server adopts connections once it listens, and deals with others")
        self._dealt.adopt(connection)

    async def replace_tls(self, tls: ssl.SSLContext) -> None:
        """Encrypt new connections with ``tls``."""
        for listener in self._listeners:
            listener.tls = _prepared(tls)

    async def stop(self, grace: float) -> None:
        """Stop accepting connections; give active calls ``grace`` seconds, then end the rest."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self._leave_at = time.monotonic() + grace
        for opening in list(self.opening):
            opening.hurry(min(grace, _LAST_OPENING_SECONDS))
        for connection in list(self._connections):
            connection.drain(grace)
        self.http1.drain()
        await self._wait_until_gone(grace)
        for opening in list(self.opening):
            opening.abort()
        await asyncio.gather(*self.introductions)
        for connection in list(self._connections):
            connection.abort("the service ends")
        self.http1.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    # Interface for connections.

    @property
    def connections(self) -> int:
        """Number of connections."""
        return len(self._connections) + len(self.opening) + self.http1.connections

    def connection(self) -> ServerConnection:
        """Return a new HTTP/2 connection."""
        return ServerConnection(self)

    def opened(self, connection: ServerConnection) -> None:
        """Register an open connection."""
        self._connections.add(connection)
        if self._leave_at is not None:
            connection.drain(max(0.0, self._leave_at - time.monotonic()))

    def closed(self, connection: ServerConnection) -> None:
        """Remove a closed connection."""
        self._connections.discard(connection)
        self.fewer()

    def fewer(self) -> None:
        """Count one connection fewer, of any kind."""
        if self._gone is not None:
            self._gone.set()
        if self._dealing is not None:
            self._dealing.fewer()

    def open(self, connection: ServerConnection, stream_id: int, pairs: Sequence[Header]) -> ServerStream:
        """Return the stream of a new request: a call, or plain HTTP."""
        known = connection.known_head
        if known is not None and known.pairs == pairs and known.method is not None:
            # A client sends the same headers with each call; header compression relies on this too.
            call = ServerCall(connection, stream_id, known, known.method)
            if known.seconds is not None:
                call.deadline = time.monotonic() + known.seconds
            return call
        head = RequestHead(pairs)
        if not head.is_grpc:
            return HttpExchange(connection, stream_id, pairs, self._application, self._tasks)
        call = ServerCall(connection, stream_id, head, _UNROUTED)
        try:
            head.check(self.limits.max_metadata_bytes)
            if head.seconds is not None:
                call.deadline = time.monotonic() + head.seconds
            call.method = self._methods.get(head.headers[b":path"]) or self._looked_up(call)
        except WireError as error:
            call.fail(error.code, str(error))
        else:
            head.method = call.method
            connection.known_head = head
        return call

    # Internal.

    def _open_connection(self, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
        if self.connections < self.limits.max_connections:
            Opening(self, connection, tls).begin()
        else:
            connection.close()
            self.fewer()

    def _looked_up(self, call: ServerCall) -> Method:
        details = _CallDetails(call)
        for generic in self._generic:
            handler = generic.service(details)
            if handler is not None:
                return ServicerMethod(handler, self._tasks)
        raise WireError(StatusCode.UNIMPLEMENTED, "Method not found!")

    def _look(self) -> None:
        now = time.monotonic()
        for connection in list(self._connections):
            connection.look(now)
        self.http1.look(now)
        self._watch = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    async def _wait_until_gone(self, grace: float) -> None:
        # A second call of ``stop``, with less grace, cuts short the wait of the first one.
        self._gone = self._gone or asyncio.Event()
        try:
            async with asyncio.timeout(grace):
                while self._connections or self.opening or self.http1.connections:
                    self._gone.clear()
                    await self._gone.wait()
        except TimeoutError:
            return


def _prepared(tls: ssl.SSLContext | None) -> ssl.SSLContext | None:
    if tls is not None:
        tls.set_alpn_protocols(["h2", "http/1.1"])
    return tls
