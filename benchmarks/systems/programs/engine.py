"""A gRPC server reduced to the needs of the HTTP/2 engine: unary calls from honest callers, no guards, no limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, cast

import uvloop
from ngh2 import Connection
from ngh2.config import Role
from ngh2.enums import Setting
from ngh2.events import DataReceived, RequestReceived, StreamClosed

_SETTINGS: Final = {Setting.MAX_CONCURRENT_STREAMS: 1000}
_BACKLOG: Final = 1024
_HEADERS: Final = ((b":status", b"200"), (b"content-type", b"application/grpc"))
_OK: Final = ((b"grpc-status", b"0"),)


class Call:
    """A request and its answer."""

    __slots__ = ("body", "connection", "headers", "stream")

    def __init__(self, connection: EngineConnection, stream: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.connection = connection
        self.stream = stream
        self.headers = headers
        self.body = b""

    def answer(self, framed: bytes, trailers: Sequence[tuple[bytes, bytes]] = _OK) -> None:
        """Queue the answer; ``connection.flush()`` sends what is queued. An empty ``framed`` sends no message."""
        engine = self.connection.engine
        engine.send_response(self.stream, _HEADERS)
        if framed:
            engine.send_data(self.stream, framed)
        engine.send_trailers(self.stream, trailers)


Handler = Callable[[list[Call]], None]
"""Called with the calls that one read of a socket completed."""


class EngineConnection(asyncio.Protocol):
    """A caller's connection."""

    def __init__(self, handle: Handler) -> None:
        self.engine = Connection(Role.SERVER)
        self._handle = handle
        self._arriving: dict[int, Call] = {}
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the HTTP/2 connection with the server's settings."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport has no base class
        self.engine.initiate_connection(_SETTINGS)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop sending."""
        del exc
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Pass the calls that ``data`` completes to the handler."""
        self.engine.receive_data(data)
        arriving = self._arriving
        complete: list[Call] = []
        for event in self.engine.events():
            if isinstance(event, DataReceived):
                call = arriving[event.stream_id]
                call.body += event.data
                if event.end_stream:
                    complete.append(arriving.pop(event.stream_id))
            elif isinstance(event, RequestReceived):
                arriving[event.stream_id] = Call(self, event.stream_id, event.headers)
            elif isinstance(event, StreamClosed):
                arriving.pop(event.stream_id, None)
        if complete:
            self._handle(complete)
        self.flush()

    def flush(self) -> None:
        """Send what is queued, in one write."""
        output = self.engine.data_to_send()
        if self._transport is None:
            return
        if output:
            self._transport.write(output)
        for event in self.engine.events():
            if isinstance(event, StreamClosed):
                self._arriving.pop(event.stream_id, None)


def serve(handle: Handler, port: str) -> None:
    """Serve until the process is stopped."""
    uvloop.run(_serve(handle, int(port)))


async def _serve(handle: Handler, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: EngineConnection(handle), "127.0.0.1", port, backlog=_BACKLOG
    )
    async with server:
        await server.serve_forever()
