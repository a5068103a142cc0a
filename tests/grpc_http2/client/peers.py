"""Servers for the tests of the channel: grpcio's own, and peers that a test scripts frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import grpc
from grpc import StatusCode
from ngh2 import Configuration, Connection, Role
from ngh2.events import DataReceived, Event, PingReceived, RequestReceived, StreamReset

from grpc_http2.client.channel import Channel
from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.server import Server
from grpc_http2.wire import framed

SERVICE: Final = "test.Service"
ONE, MANY, SUM, BOTH = (f"/{SERVICE}/{name}" for name in ("One", "Many", "Sum", "Both"))

HEADERS: Final = ((b":status", b"200"), (b"content-type", b"application/grpc"))
OK: Final = ((b"grpc-status", b"0"),)


class Service:
    """Service that echoes requests and keeps the metadata and the remaining time of each call."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, str | bytes]] = []
        self.seconds: list[float] = []
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.sent = 0

    async def one(self, request: bytes, context: Any) -> bytes:
        await self._greet(context)
        if request == b"wait":
            await self._wait()
        if request == b"refuse":
            await context.abort(
                StatusCode.NOT_FOUND, "no such thing: é %", (("why", "because"), ("raw-bin", b"\0\xff"))
            )
        return request

    async def many(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        await self._greet(context)
        number, size = map(int, request.split(b"x"))
        try:
            for index in range(number):
                yield str(index).encode().zfill(size)
                self.sent += 1
            if not number:
                await self._wait()
        finally:
            self.ended.set()

    async def sum(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        await self._greet(context)
        return str(sum([len(request) async for request in requests])).encode()

    async def both(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await self._greet(context)
        async for request in requests:
            if request == b"refuse":
                await context.abort(StatusCode.OUT_OF_RANGE, "that was too much")
            yield request

    async def _greet(self, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        self.seconds.append(context.time_remaining())
        await context.send_initial_metadata((("greeting", "hello"),))

    async def _wait(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


def handlers_of(service: Service) -> grpc.GenericRpcHandler:
    handlers: Any = {
        "One": grpc.unary_unary_rpc_method_handler(service.one),
        "Many": grpc.unary_stream_rpc_method_handler(service.many),
        "Sum": grpc.stream_unary_rpc_method_handler(service.sum),
        "Both": grpc.stream_stream_rpc_method_handler(service.both),
    }
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


@asynccontextmanager
async def own_server(service: Service) -> AsyncIterator[str]:
    """Yield the address of our server."""
    server = Server(ServerLimits(max_message_bytes=8 << 20, max_metadata_bytes=128 << 10))
    server.add_generic_rpc_handlers((handlers_of(service),))
    port = await server.listen("127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def grpcio_server(
    service: Service, *options: tuple[str, Any], credentials: grpc.ServerCredentials | None = None, port: int = 0
) -> AsyncIterator[str]:
    """Yield the address of a grpcio server."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0), *options])
    server.add_generic_rpc_handlers((handlers_of(service),))
    where = f"127.0.0.1:{port}"
    found = server.add_insecure_port(where) if credentials is None else server.add_secure_port(where, credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{found}"
    finally:
        await server.stop(0)


class Peer(asyncio.Protocol):
    """One connection of a scripted server."""

    def __init__(
        self, act: Callable[[Peer, Event], None], settings: dict[int, int], greets: bool, others: list[Peer]
    ) -> None:
        self._act = act
        self._settings = settings
        self._greets = greets
        self._others = others
        self.engine = Connection(Role.SERVER, Configuration())
        self.requests: list[RequestReceived] = []
        self.resets: list[StreamReset] = []
        self.pings = 0
        self.received = 0
        self.transport: asyncio.Transport
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._others.append(self)
        if self._greets:
            self.engine.initiate_connection(self._settings)
            self.flush()

    def data_received(self, data: bytes) -> None:
        if not self._greets:
            return
        self.engine.receive_data(data)
        for event in self.engine.events():
            if isinstance(event, RequestReceived):
                self.requests.append(event)
            elif isinstance(event, StreamReset):
                self.resets.append(event)
            elif isinstance(event, PingReceived):
                self.pings += 1
            elif isinstance(event, DataReceived):
                self.received += len(event.data)
            self._act(self, event)
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()

    def flush(self) -> None:
        while data := self.engine.data_to_send():
            self.engine.events()
            if not self.transport.is_closing():
                self.transport.write(data)
        self.engine.events()

    def answer(self, stream: int, message: bytes = b"answer") -> None:
        """Send a complete, successful response."""
        self.engine.send_response(stream, HEADERS)
        self.engine.send_data(stream, framed(message))
        self.engine.send_trailers(stream, OK)

    def refuse(self, stream: int, code: StatusCode, *more: tuple[bytes, bytes]) -> None:
        """Send a status without a message."""
        status = (b"grpc-status", b"%d" % code.value[0])
        self.engine.send_response(stream, (*HEADERS, status, (b"grpc-message", b"refused"), *more), end_stream=True)


def complete(event: Event) -> int | None:
    """Return the stream of the request that ``event`` completes; ``None`` if it completes none."""
    if isinstance(event, DataReceived | RequestReceived) and event.end_stream:
        return event.stream_id
    return None


class Peers:
    """A scripted server."""

    def __init__(self) -> None:
        self.address = ""
        self.connections: list[Peer] = []
        self.close: Callable[[], None]
        """Stop accepting connections."""

    @property
    def last(self) -> Peer:
        return self.connections[-1]

    @property
    def requests(self) -> int:
        return sum(len(connection.requests) for connection in self.connections)


@asynccontextmanager
async def peers(
    act: Callable[[Peer, Event], None],
    settings: dict[int, int] | None = None,
    *,
    greets: bool = True,
    port: int = 0,
) -> AsyncIterator[Peers]:
    """Yield a server whose connections call ``act`` with each event."""
    found = Peers()

    def make() -> Peer:
        return Peer(act, settings or {}, greets, found.connections)

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", port)
    found.close = server.close
    found.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()
        for connection in found.connections:
            connection.transport.abort()
        await server.wait_closed()


def one_of(channel: Channel) -> Any:
    return channel.unary_unary(ONE)


async def error_of(call: Any) -> grpc.aio.AioRpcError:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call has not failed")


def echoing(peer: Peer, event: Event) -> None:
    """Answer every request."""
    stream = complete(event)
    if stream is not None:
        peer.answer(stream)


def answering(peer: Peer, event: Event) -> None:
    """Answer every request but health checks, which are refused as ``UNIMPLEMENTED``."""
    stream = complete(event)
    if stream is None:
        return
    path = next(dict(request.headers)[b":path"] for request in peer.requests if request.stream_id == stream)
    if b"Health" in path:
        peer.refuse(stream, StatusCode.UNIMPLEMENTED)
    else:
        peer.answer(stream)


def each_in_turn(*acts: Callable[[Peer, int], None]) -> Callable[[Peer, Event], None]:
    """Return a script that calls one act for each request, on any connection; the last act handles all the rest."""
    waiting = list(acts)

    def act(peer: Peer, event: Event) -> None:
        stream = complete(event)
        if stream is not None:
            (waiting.pop(0) if len(waiting) > 1 else waiting[0])(peer, stream)

    return act


def codes_of(outcomes: Sequence[Any]) -> set[Any]:
    return {outcome.code() if isinstance(outcome, grpc.aio.AioRpcError) else type(outcome) for outcome in outcomes}
