"""Calls that arrive frame by frame, and answers that must not be lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from urllib.parse import unquote

import pytest
from grpc import StatusCode
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from grpc_http2.wire import framed
from tests.builders import PATIENCE, a_turn
from tests.grpc_http2.frames import PREFACE
from tests.grpc_http2.server.peers import Peer, peer_of
from tests.grpc_http2.server.service import BOTH, MANY, ONE, SUM, Hosted, hosted

OK, INTERNAL, UNIMPLEMENTED = "0", str(StatusCode.INTERNAL.value[0]), str(StatusCode.UNIMPLEMENTED.value[0])
NO_ERROR, CANCEL = 0, 8


@pytest.fixture
async def served() -> AsyncIterator[Hosted]:
    async with hosted() as running:
        yield running


@pytest.fixture
async def peer(served: Hosted) -> AsyncIterator[Peer]:
    async with peer_of(served.port) as connection:
        yield connection


async def seen(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), PATIENCE)


# Arrival of requests


def pieces_of(body: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[start:end] for start, end in itertools.pairwise(places)] or [b""]


@given(
    messages=st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
    end=st.sampled_from(["data", "empty data", "trailers"]),
    writes=st.integers(1, 50),
)
def test_messages_may_be_split_over_frames_and_reads_in_every_way(
    messages: list[bytes], cuts: list[int], end: str, writes: int
) -> None:
    async def check() -> None:
        async with hosted() as served, peer_of(served.port) as peer:
            with peer.gathering() as written:
                stream = peer.headers(BOTH)
                pieces = pieces_of(b"".join(map(framed, messages)), cuts)
                for index, piece in enumerate(pieces):
                    peer.data(stream, piece, last=end == "data" and index == len(pieces) - 1)
                if end == "empty data":
                    peer.data(stream, b"", last=True)
                elif end == "trailers":
                    block = peer.encoder.encode([("a", "b")])
                    peer.send(HeadersFrame(stream, block, flags=["END_HEADERS", "END_STREAM"]))
            for start in range(0, len(written), writes):
                peer.write(bytes(written[start : start + writes]))
                await asyncio.sleep(0)
            response = await peer.response(stream)
            assert (response.status, response.body) == (OK, b"".join(map(framed, messages)))

    asyncio.run(check())


@pytest.mark.parametrize("end", ["headers", "data", "trailers"])
@pytest.mark.parametrize("path", [ONE, SUM])
async def test_a_request_may_end_with_headers_data_or_trailers(end: str, path: str, peer: Peer) -> None:
    stream = peer.headers(path, last=end == "headers")
    if end != "headers":
        peer.data(stream, framed(b"abc"), last=end == "data")
    if end == "trailers":
        peer.send(HeadersFrame(stream, peer.encoder.encode([("a", "b")]), flags=["END_HEADERS", "END_STREAM"]))
    response = await peer.response(stream)
    if end == "headers":
        # A request without a message is valid for a stream, but not for a method that takes one message.
        assert (response.status, response.body[5:]) == ((OK, b"0") if path == SUM else (UNIMPLEMENTED, b""))
    else:
        assert (response.status, response.message) == (OK, b"3" if path == SUM else b"abc")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (framed(b"a") + framed(b"b"), UNIMPLEMENTED),
        (framed(b"a") + b"\0", UNIMPLEMENTED),
        (framed(b"abc")[:-1], INTERNAL),
        (b"\0\0\0", INTERNAL),
    ],
    ids=["two", "one and a half", "half", "less than a length"],
)
async def test_a_call_of_one_message_takes_one(body: bytes, status: str, peer: Peer) -> None:
    stream = peer.headers()
    peer.data(stream, body, last=True)
    assert (await peer.response(stream)).status == status
    assert (await peer.asked(b"next")).message == b"next"


async def test_frames_of_many_calls_may_be_mixed_with_all_others(peer: Peer) -> None:
    streams = [peer.headers() for _ in range(20)]
    for stream in reversed(streams):
        peer.data(stream, framed(b"%d" % stream)[:3])
        peer.send(WindowUpdateFrame(stream, window_increment=5), SettingsFrame(0, {}))
    for stream in streams:
        peer.data(stream, framed(b"%d" % stream)[3:])
    peer.send(DataFrame(streams[0], b"", flags=["PADDED", "END_STREAM"], pad_length=200))
    for stream in streams[1:]:
        peer.data(stream, b"", last=True)
    for stream in streams:
        assert (await peer.response(stream)).message == b"%d" % stream


# Answers


async def test_an_answer_before_the_end_of_the_request_is_not_lost_and_ends_the_request(peer: Peer) -> None:
    stream = peer.headers(SUM)
    peer.data(stream, framed(b"stop"))
    response = await peer.response(stream)
    assert (response.status, response.message) == (OK, b"stopped")
    while response.reset is None:
        await peer.frame()
    assert response.reset == NO_ERROR
    assert (await peer.asked(b"next")).message == b"next"


async def test_a_large_answer_before_the_end_of_the_request_arrives_whole(served: Hosted) -> None:
    settings = {SettingsFrame.INITIAL_WINDOW_SIZE: 10}
    async with peer_of(served.port, settings=settings) as peer:
        stream = peer.headers(BOTH)
        peer.data(stream, framed(b"x" * 1000))
        peer.data(stream, b"\1\0\0\0\0", last=False)
        while len(peer.responses[stream].body) < 10:
            await peer.frame()
        peer.send(WindowUpdateFrame(stream, window_increment=10_000))
        response = await peer.response(stream)
    # The second message is malformed; its status follows the first answer.
    assert (response.status, response.message) == (INTERNAL, b"x" * 1000)


async def test_a_stream_that_is_over_is_forgotten_when_its_last_bytes_are_written(peer: Peer, served: Hosted) -> None:
    """The server also processes the events of the engine after the last write, when no bytes are left to write."""
    await peer.ping()
    (connection,) = served.server._connections
    for message in (b"a", b"wait"):
        stream = peer.call(message)
        if message == b"wait":
            await seen(served.service.begun)
            served.service.may_answer.set()
        await peer.response(stream)
        # Send no more frames: reading one would report the end of the stream as well.
        await a_turn(5)
        assert connection.streams == {}


async def test_a_call_that_was_cancelled_is_answered_by_nobody(peer: Peer, served: Hosted) -> None:
    stream = peer.call(b"wait")
    await seen(served.service.begun)
    peer.send(RstStreamFrame(stream, error_code=CANCEL))
    await seen(served.service.ended)
    # Streams that end in the read in which they began were never announced or can no longer be answered.
    peer.write(b"")
    for number in range(100):
        block = peer.encoder.encode([(":method", "POST"), (":scheme", "http"), (":path", ONE)])
        at = stream + 2 + 2 * number
        peer.send(HeadersFrame(at, block, flags=["END_HEADERS"]), RstStreamFrame(at, error_code=CANCEL))
    response = await peer.response(peer.headers(ONE, last=True, stream=stream + 1000))
    assert response.status == UNIMPLEMENTED
    (connection,) = served.server._connections
    assert connection.streams == {}


async def test_a_whole_call_and_its_cancellation_in_one_read_harm_nobody(served: Hosted, logged: list[object]) -> None:
    async with peer_of(served.port, greets=False) as peer:
        with peer.gathering() as written:
            peer.write(PREFACE)
            peer.send(SettingsFrame(0))
            for path in (ONE, MANY, SUM, BOTH) * 5:
                stream = peer.call(b"3x3", path)
                peer.send(RstStreamFrame(stream, error_code=CANCEL))
        peer.write(bytes(written))
        assert (await peer.asked(b"next")).message == b"next"
    assert logged == []


@pytest.mark.parametrize("text", ["100% %41", "é ☃", "one\ntwo\r\0", "a b~"])
async def test_the_message_of_a_status_is_percent_encoded(text: str, peer: Peer) -> None:
    response = await peer.asked(b"abort " + text.encode())
    encoded = response.headers["grpc-message"]
    assert encoded.isascii()
    assert encoded.isprintable()
    assert unquote(encoded) == text


@pytest.mark.parametrize(
    ("name", "value"), [("a", "one\r\ngrpc-status: 0"), ("a", "é"), ("a/b", "x"), ("grpc-status", "0")]
)
async def test_metadata_that_cannot_be_sent_are_a_fault_and_do_not_reach_the_wire(
    name: str, value: str, peer: Peer, logged: list[object]
) -> None:
    response = await peer.asked(f"metadata {name} {value}".encode())
    assert response.status == INTERNAL
    assert "grpc-message" in response.headers
    assert len(logged) == 1
    assert (await peer.asked(b"metadata A-key value")).trailers["a-key"] == "value"


async def test_a_servicer_that_fails_tells_its_caller_nothing(peer: Peer, logged: list[object]) -> None:
    response = await peer.asked(b"fail")
    assert (response.status, "Zero" in response.headers["grpc-message"]) == (INTERNAL, False)
    assert len(logged) == 1
