"""The service that the tests of the server host: methods of all kinds, controlled by their requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from grpc import StatusCode

from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.plain_http.http_exchange import Application
from grpc_http2.server.server import Server

SERVICE: Final = "test.Service"
ONE, MANY, SUM, BOTH = (f"/{SERVICE}/{name}" for name in ("One", "Many", "Sum", "Both"))


class Service:
    """Service that echoes its requests."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.calls = 0
        self.sent = 0
        self.received: list[bytes] = []

    async def one(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        if request == b"wait":
            self.begun.set()
            try:
                await self.may_answer.wait()
            finally:
                self.ended.set()
        if request == b"fail":
            raise ZeroDivisionError
        if request.startswith(b"abort "):
            await context.abort(StatusCode.ABORTED, request[6:].decode())
        if request.startswith(b"metadata "):
            _, name, value = request.decode().split(" ", 2)
            context.set_trailing_metadata(((name, value),))
        if request.startswith(b"size "):
            return b"x" * int(request[5:])
        return request

    async def many(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Answer with as many messages, and as large, as the request says: ``3x1000`` is 3 messages of 1,000 bytes."""
        del context
        number, size = map(int, request.split(b"x"))
        try:
            for _ in range(number):
                yield b"m" * size
                self.sent += size
        finally:
            self.ended.set()

    async def sum(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        del context
        self.begun.set()
        total = 0
        async for request in requests:
            if request == b"stop":
                return b"stopped"
            if request == b"wait":
                await self.may_answer.wait()
            self.received.append(request)
            total += len(request)
        return b"%d" % total

    async def both(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        del context
        async for request in requests:
            yield request

    def handlers(self) -> dict[str, Any]:
        return {
            "One": grpc.unary_unary_rpc_method_handler(self.one),
            "Many": grpc.unary_stream_rpc_method_handler(self.many),
            "Sum": grpc.stream_unary_rpc_method_handler(self.sum),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
        }


class Hosted:
    """A listening server."""

    def __init__(self, server: Server, service: Service, port: int) -> None:
        self.server = server
        self.service = service
        self.port = port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def hosted(web: Application | None = None, tls: Any = None, **limits: Any) -> AsyncIterator[Hosted]:
    """Host the service on a free port."""
    server, service = Server(ServerLimits(**limits)), Service()
    server.add_registered_method_handlers(SERVICE, service.handlers())
    if web is not None:
        server.serve_http(web)
    port = await server.listen("127.0.0.1", 0, tls=tls)
    try:
        yield Hosted(server, service, port)
    finally:
        await server.stop(0)
