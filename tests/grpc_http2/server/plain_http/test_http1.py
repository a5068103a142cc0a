"""HTTP/1.1 on the port of gRPC, and the parts of uvicorn's non-public protocol class that the server relies on."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.builders import PATIENCE, channel_to
from tests.conftest import ROOT
from tests.grpc_http2.server.service import ONE, Hosted, hosted
from tests.grpc_http2.server.web import Web


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
async def served(web: Web) -> AsyncIterator[Hosted]:
    async with hosted(web) as running:
        yield running


class Client:
    """One connection, whose requests are written in their wire format."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *lines: str, body: bytes = b"") -> None:
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    async def answer(self, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(PATIENCE):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
            }
            size = int(headers.get("content-length", 0)) if has_body else 0
            return int(first.split()[1]), headers, await self.reader.readexactly(size)

    async def is_closed(self) -> bool:
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read() == b""
            except OSError:
                return True


@asynccontextmanager
async def client_of(served: Hosted) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", served.port))
    try:
        yield client
    finally:
        client.writer.transport.abort()


GET = ("GET / HTTP/1.1", "host: a")


async def test_it_is_told_from_http_2_by_its_first_bytes(served: Hosted) -> None:
    for method in ("GET", "POST", "PUT", "PROPFIND", "P"):
        async with client_of(served) as client:
            client.send(f"{method} /x HTTP/1.1", "host: a", "content-length: 0")
            status, _, body = await client.answer()
            if method != "P":
                assert (status, json.loads(body)["method"], json.loads(body)["http"]) == (200, method, "1.1")
    async with channel_to(served.address) as channel:
        call: Any = channel.unary_unary(ONE)
        assert await call(b"a", timeout=PATIENCE) == b"a"


async def test_requests_follow_each_other_on_one_connection_and_may_be_pipelined(served: Hosted) -> None:
    async with client_of(served) as client:
        for _ in range(3):
            client.send(*GET)
            assert (await client.answer())[0] == 200
        client.send(*GET, body=b"".join(b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % number for number in range(20)))
        await client.answer()
        for number in range(20):
            assert json.loads((await client.answer())[2])["path"] == f"/{number}"


async def test_http_1_0_is_answered_and_closed(served: Hosted) -> None:
    async with client_of(served) as client:
        client.send("GET / HTTP/1.0")
        assert (await client.answer())[0] == 200
        assert await client.is_closed()


async def test_bodies_come_by_length_or_in_chunks(served: Hosted) -> None:
    async with client_of(served) as client:
        client.send("POST / HTTP/1.1", "host: a", "content-length: 100000", body=b"x" * 100_000)
        assert json.loads((await client.answer())[2])["size"] == 100_000
    async with client_of(served) as client:
        client.send("POST / HTTP/1.1", "host: a", "transfer-encoding: chunked")
        for _ in range(10):
            client.writer.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        client.writer.write(b"0\r\ntrailer: x\r\n\r\n")
        assert json.loads((await client.answer())[2])["size"] == 10_000


async def test_a_caller_that_asks_before_it_sends_its_body_is_told_to_go_on(served: Hosted) -> None:
    async with client_of(served) as client:
        client.send("POST / HTTP/1.1", "host: a", "content-length: 3", "expect: 100-continue")
        assert (await client.answer())[0] == 100
        client.writer.write(b"abc")
        assert json.loads((await client.answer())[2])["size"] == 3


async def test_head_is_answered_without_a_body(served: Hosted) -> None:
    async with client_of(served) as client:
        client.send("HEAD / HTTP/1.1", "host: a", "connection: close")
        status, headers, _ = await client.answer(has_body=False)
        assert (status, int(headers["content-length"]) > 0) == (200, True)
        assert await client.is_closed()


async def test_what_is_no_http_is_refused(served: Hosted) -> None:
    async with client_of(served) as client:
        client.writer.write(b"\x16\x03\x01\x02\x00garbage\r\n\r\n")
        assert (await client.answer(has_body=False))[0] == 400


async def test_without_an_application_it_is_told_that_the_port_speaks_grpc() -> None:
    async with hosted() as served, client_of(served) as client:
        client.send(*GET)
        assert (await client.answer())[0] == 415


# Bounds


@pytest.mark.parametrize("where", ["one line", "many lines", "the target"])
async def test_headers_that_are_too_large_are_refused_and_the_connection_is_closed(where: str, served: Hosted) -> None:
    async with client_of(served) as client:
        if where == "the target":
            client.writer.write(b"GET /")
        else:
            client.writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n")
        line = b"x" * 1000 if where != "many lines" else b"a: b\r\n" * 160
        if where == "one line":
            client.writer.write(b"a: ")
        for _ in range(100):
            client.writer.write(line)
        assert (await client.answer(has_body=False))[0] in (400, 431)
        assert await client.is_closed()


async def test_headers_that_do_not_come_end_the_connection(web: Web) -> None:
    async with hosted(web, header_seconds=0.1) as served, client_of(served) as client:
        client.writer.write(b"GET / HTTP/1.1\r\nhost:")
        assert await client.is_closed()


async def test_a_connection_of_http_1_counts_among_the_connections(web: Web) -> None:
    async with hosted(web, max_connections=1) as served, client_of(served) as first:
        first.send("GET /wait HTTP/1.1", "host: a")
        await asyncio.wait_for(web.begun.wait(), PATIENCE)
        async with client_of(served) as second:
            assert await second.is_closed()
        web.may_answer.set()
        assert (await first.answer())[0] == 200


# Drain and disconnection


async def test_a_request_under_way_is_answered_during_a_drain(web: Web) -> None:
    async with hosted(web) as served, client_of(served) as client, client_of(served) as idle:
        idle.send(*GET)
        await idle.answer()
        client.send("GET /wait HTTP/1.1", "host: a")
        await asyncio.wait_for(web.begun.wait(), PATIENCE)
        stopping = asyncio.ensure_future(served.server.stop(PATIENCE))
        assert await idle.is_closed()
        assert not stopping.done()
        web.may_answer.set()
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        await asyncio.wait_for(stopping, PATIENCE)


async def test_a_request_that_outlasts_the_grace_is_ended(web: Web) -> None:
    async with hosted(web) as served, client_of(served) as client:
        client.send("GET /wait HTTP/1.1", "host: a")
        await asyncio.wait_for(web.begun.wait(), PATIENCE)
        await served.server.stop(0.05)
        assert await client.is_closed()
        await asyncio.wait_for(web.left.wait(), PATIENCE)


async def test_the_application_hears_of_a_caller_who_leaves(served: Hosted, web: Web) -> None:
    async with client_of(served) as client:
        client.send("GET /wait HTTP/1.1", "host: a")
        await asyncio.wait_for(web.begun.wait(), PATIENCE)
    await asyncio.wait_for(web.left.wait(), PATIENCE)


# Reliance on uvicorn


def test_the_version_of_uvicorn_is_pinned_and_its_protocol_is_made_as_here() -> None:
    pins = (ROOT / "requirements" / "frontend.txt").read_text()
    assert re.search(rf"^uvicorn=={re.escape(version('uvicorn'))}$", pins, re.MULTILINE)
    parameters = inspect.signature(HttpToolsProtocol.__init__).parameters
    assert list(parameters) == ["self", "config", "server_state", "app_state", "_loop"]
    for name in (
        "connection_made",
        "connection_lost",
        "data_received",
        "shutdown",
        "on_message_begin",
        "on_headers_complete",
    ):
        assert callable(getattr(HttpToolsProtocol, name))
