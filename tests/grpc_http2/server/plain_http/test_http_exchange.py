"""Plain HTTP over HTTP/2: an ASGI application beside the services of gRPC."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hyperframe.frame import RstStreamFrame, SettingsFrame

from tests.builders import PATIENCE
from tests.grpc_http2.server.peers import Peer, peer_of
from tests.grpc_http2.server.service import ONE, hosted
from tests.grpc_http2.server.web import Web

INTERNAL_ERROR, CANCEL, NO_ERROR = 2, 8, 0


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
async def peer(web: Web) -> AsyncIterator[Peer]:
    async with hosted(web) as served, peer_of(served.port) as connection:
        yield connection


def ask(peer: Peer, path: str, method: str = "GET", *, last: bool = True) -> int:
    return peer.headers(path, (":method", method), ("content-type", "text/plain"), last=last)


async def test_a_request_without_a_body_is_answered(peer: Peer, web: Web) -> None:
    response = await peer.response(ask(peer, "/a%20b?c=%20d"))
    assert response.headers == {":status": "200", "content-length": str(len(response.body)), "x": "y"}
    assert json.loads(response.body) == {"method": "GET", "path": "/a b", "size": 0, "http": "2"}
    (scope,) = web.scopes
    assert (scope["query_string"], scope["raw_path"], scope["scheme"]) == (b"c=%20d", b"/a%20b", "http")
    assert (b"host", b"localhost") in scope["headers"]
    assert scope["client"][0] == "127.0.0.1"


@pytest.mark.parametrize("size", [0, 1, 100_000])
async def test_a_body_arrives_whole_beside_calls_of_grpc(size: int, peer: Peer) -> None:
    stream = ask(peer, "/", "POST", last=False)
    call = peer.call(b"beside")
    await peer.ping()
    for start in range(0, size, 10_000):
        peer.data(stream, b"x" * min(10_000, size - start))
    peer.data(stream, b"", last=True)
    assert json.loads((await peer.response(stream)).body)["size"] == size
    assert (await peer.response(call)).message == b"beside"


async def test_head_is_answered_without_a_body(peer: Peer) -> None:
    response = await peer.response(ask(peer, "/", "HEAD"))
    assert (response.headers[":status"], response.body) == ("200", b"")
    assert int(response.headers["content-length"])


async def test_an_answer_before_the_end_of_the_body_ends_the_request(peer: Peer) -> None:
    stream = ask(peer, "/early", "POST", last=False)
    peer.data(stream, b"x" * 10_000)
    response = await peer.response(stream)
    while response.reset is None:
        await peer.frame()
    assert (response.headers[":status"], response.body, response.reset) == ("403", b"no", NO_ERROR)
    assert (await peer.asked(b"next")).message == b"next"


@pytest.mark.parametrize("path", ["/fail", "/silent"])
async def test_an_application_that_does_not_answer_ends_its_stream_alone(path: str, peer: Peer) -> None:
    response = await peer.response(ask(peer, path))
    assert response.reset == INTERNAL_ERROR
    assert (await peer.asked(b"next")).message == b"next"


@pytest.mark.parametrize("half", [True, False], ids=["in the middle of its body", "while it waits"])
async def test_the_application_hears_of_a_caller_who_leaves(half: bool, peer: Peer, web: Web) -> None:
    stream = ask(peer, "/wait", "POST", last=not half)
    if half:
        peer.data(stream, b"x")
        await peer.ping()
    else:
        await asyncio.wait_for(web.begun.wait(), PATIENCE)
    peer.send(RstStreamFrame(stream, error_code=CANCEL))
    await asyncio.wait_for(web.left.wait(), PATIENCE)


async def test_a_large_answer_waits_for_its_reader(web: Web) -> None:
    settings = {SettingsFrame.INITIAL_WINDOW_SIZE: 1_000}
    async with hosted(web) as served, peer_of(served.port, settings=settings) as peer:
        stream = ask(peer, "/large?300000")
        while len(peer.responses[stream].body) < 1_000:
            await peer.frame()
        peer.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 20}))
        assert len((await peer.response(stream)).body) == 300_000


async def test_without_an_application_what_is_no_grpc_is_refused() -> None:
    async with hosted() as served, peer_of(served.port) as peer:
        for stream in (ask(peer, "/"), ask(peer, ONE, "POST"), peer.headers(ONE, (":method", "GET"), last=True)):
            assert (await peer.response(stream)).headers[":status"] == "415"


@pytest.mark.parametrize(
    ("kind", "is_grpc"),
    [
        ("application/grpc", True), ("application/grpc+proto", True), ("application/grpc;x=y", True),
        ("application/grpc-web", False), ("application/json", False), ("", False),
    ],
)  # fmt: skip
async def test_grpc_is_told_by_its_content_type(kind: str, is_grpc: bool, peer: Peer, web: Web) -> None:
    stream = peer.headers(ONE, ("content-type", kind))
    peer.data(stream, b"\0\0\0\0\0", last=True)
    response = await peer.response(stream)
    assert ("grpc-status" in (response.headers | response.trailers)) == is_grpc
    assert bool(web.scopes) != is_grpc


def headers_of(scope: Any) -> dict[bytes, bytes]:
    return dict(scope["headers"])
