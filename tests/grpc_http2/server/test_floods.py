"""Peers that break the protocol or flood the server with legal frames: only their connections are ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from grpc_http2.server.calls.call import ServerCall
from grpc_http2.server.connection import ServerConnection
from grpc_http2.wire import framed
from tests.builders import PATIENCE
from tests.grpc_http2.frames import raw_frame
from tests.grpc_http2.server.peers import ConnectionEnded, Peer, codes_of, peer_of
from tests.grpc_http2.server.service import BOTH, MANY, ONE, Hosted, hosted

ENHANCE_YOUR_CALM, CANCEL = 11, 8


@pytest.fixture
async def served() -> AsyncIterator[Hosted]:
    async with hosted() as running:
        yield running


@pytest.fixture
async def other(served: Hosted) -> AsyncIterator[Peer]:
    """Yield the connection of another caller."""
    async with peer_of(served.port) as connection:
        await connection.asked(b"before")
        yield connection


FAULTS = {
    "garbage": b"\xff" * 100,
    "data of no stream": DataFrame(7, b"x").serialize(),
    "a frame too large": raw_frame(0, 0, 1, b"x" * 20_000),
    "a window beyond all": WindowUpdateFrame(0, window_increment=(1 << 31) - 1).serialize() * 2,
    "a ping of seven bytes": raw_frame(6, 0, 0, b"1234567"),
    "settings of a stream": raw_frame(4, 0, 1, b""),
    "headers of an even stream": raw_frame(1, 5, 2, b"\x82"),
    "headers that are none": raw_frame(1, 5, 1, b"\xff\xff\xff"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("together", [True, False], ids=["in one read with calls", "alone"])
async def test_who_breaks_the_protocol_is_ended_with_all_calls_and_nobody_else_is(
    fault: bytes, together: bool, served: Hosted, other: Peer, logged: list[object]
) -> None:
    async with peer_of(served.port) as peer:
        peer.call(b"wait")
        await asyncio.wait_for(served.service.begun.wait(), PATIENCE)
        if together:
            # Calls that were read before the fault are served in this turn, and cannot be answered.
            for path in (ONE, MANY, BOTH):
                peer.call(b"2x2", path)
        peer.write(fault)
        await peer.end()
        await asyncio.wait_for(served.service.ended.wait(), PATIENCE)
    for _ in range(3):
        assert (await other.asked(b"after")).message == b"after"
    assert logged == []


async def test_what_came_in_one_read_with_what_the_engine_refuses_is_not_served(served: Hosted, other: Peer) -> None:
    """Events that the engine reports along with an error are discarded."""
    calls: list[bytes] = []

    def serve(call: ServerCall, message: bytes) -> None:
        calls.append(message)
        call.answer(message)

    served.server.add_call_handler("/test.Service/Plain", serve)
    async with peer_of(served.port) as peer:
        assert (await peer.asked(b"well", "/test.Service/Plain")).message == b"well"
        with peer.gathering() as written:
            for _ in range(3):
                peer.call(b"a", "/test.Service/Plain")
            peer.send(HeadersFrame(101, peer.encoder.encode([("a", "b")])))
            peer.write(raw_frame(9, 0, 101, b"") * 50)
        peer.write(bytes(written))
        assert await peer.end() == []
    assert calls == [b"well"]
    assert (await other.asked(b"after")).message == b"after"


async def test_an_honest_caller_who_cancels_five_thousand_calls_keeps_its_connection(served: Hosted) -> None:
    async with peer_of(served.port) as peer:
        for _ in range(50):
            for _ in range(100):
                stream = peer.call(b"wait")
                peer.send(RstStreamFrame(stream, error_code=CANCEL))
            assert (await peer.asked(b"a")).message == b"a"
        assert peer.goaways == []


def without_use(peer: Peer) -> dict[str, Frame]:
    del peer
    return {
        "window updates": WindowUpdateFrame(0, window_increment=1),
        "priorities": PriorityFrame(1, depends_on=0, stream_weight=1),
        "data of one byte": DataFrame(1, b"x"),
        "empty data": DataFrame(1, b""),
        "settings": SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 1000}),
        "pings": PingFrame(0, b"12345678"),
        "frames of no kind": WindowUpdateFrame(0, window_increment=1),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", without_use(None).keys())  # type: ignore[arg-type]
@pytest.mark.parametrize("disguise", ["bare", "among calls"])
async def test_a_flood_without_use_ends_its_connection_and_starves_no_other(
    kind: str, disguise: str, served: Hosted, other: Peer
) -> None:
    async with peer_of(served.port) as peer:
        stream = peer.headers()
        peer.data(stream, b"\0\0\x0f\0\0")
        await peer.ping()
        frame = without_use(peer)[kind].serialize()
        if kind == "frames of no kind":
            frame = raw_frame(99, 0, 0, b"x")
        answered = asyncio.ensure_future(_ask_until_told(other))
        farewell = asyncio.ensure_future(peer.end())
        with pytest.raises((ConnectionEnded, OSError, TimeoutError)):  # noqa: PT012 - any write may fail first
            for _ in range(1000):
                peer.write(frame * 1_500)
                if disguise == "among calls":
                    again = peer.headers()
                    peer.send(RstStreamFrame(again, error_code=CANCEL))
                await peer.writer.drain()
                await asyncio.sleep(0)
                if farewell.done():
                    raise ConnectionEnded
        answered.cancel()
        await asyncio.gather(answered, return_exceptions=True)
        assert set(codes_of(farewell.result() if farewell.done() else [])) <= {ENHANCE_YOUR_CALM, 1, 2}
    assert (await other.asked(b"after")).message == b"after"


async def _ask_until_told(peer: Peer) -> None:
    while True:
        assert (await peer.asked(b"a")).message == b"a"


async def test_a_neighbour_has_its_turn_between_reads_of_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket is read in parts, however much it holds, and other connections are served between the parts."""
    turns = [0]
    updated = ServerConnection.buffer_updated

    def counted(self: ServerConnection, nbytes: int) -> None:
        turns[-1] += 1
        updated(self, nbytes)

    monkeypatch.setattr(ServerConnection, "buffer_updated", counted)
    without_bound = 1 << 30
    async with (
        hosted(max_read_bytes=4_096, idle_bytes=without_bound, idle_reads=without_bound) as served,
        peer_of(served.port) as flooding,
    ):
        await flooding.ping()
        # Bypass the event loop, so that the socket holds many frames at once.
        frames = WindowUpdateFrame(0, window_increment=1).serialize() * 20_000
        os.write(flooding.writer.get_extra_info("socket").fileno(), frames)
        for _ in range(50):
            turns.append(0)
            await asyncio.sleep(0)
        reads = turns[1:]
    assert sum(reads) > 10
    assert max(reads) <= 2


@pytest.mark.parametrize("message", [b"", b"x"])
async def test_a_stream_of_tiny_messages_is_no_flood(message: bytes) -> None:
    async with hosted(idle_bytes=10_000, idle_bytes_per_second=0) as served, peer_of(served.port) as peer:
        stream = peer.headers(BOTH)
        for _ in range(5_000):
            peer.data(stream, framed(message))
        peer.data(stream, b"", last=True)
        response = await peer.response(stream)
        assert response.body == framed(message) * 5_000


async def test_window_updates_for_what_is_sent_are_no_flood() -> None:
    settings = {SettingsFrame.INITIAL_WINDOW_SIZE: 16_000}
    async with (
        hosted(idle_bytes=2_000, idle_bytes_per_second=0) as served,
        peer_of(served.port, settings=settings) as peer,
    ):
        stream = peer.call(b"100x100000", MANY)
        response = peer.responses[stream]
        while not response.ended:
            frame = await peer.frame()
            if isinstance(frame, DataFrame) and frame.data:
                size = len(frame.data)
                peer.send(*(WindowUpdateFrame(of, window_increment=size) for of in (0, stream)))
        assert response.status == "0"


async def test_large_metadata_with_each_call_are_no_flood() -> None:
    async with hosted(idle_bytes=40_000, idle_bytes_per_second=0) as served, peer_of(served.port) as peer:
        peer.encoder.header_table_size = 0
        for number in range(50):
            assert (await peer.asked(b"a", ONE, ("token", f"{number:05}" * 2_000))).message == b"a"


async def test_what_a_caller_sends_before_it_hears_of_a_refusal_is_no_flood() -> None:
    """A client with a large upload is up to one window ahead of the answer that ends its call."""
    limits: dict[str, Any] = {"max_message_bytes": 1_000, "stream_window_bytes": 65_535}
    async with hosted(idle_bytes=40_000, idle_bytes_per_second=0, **limits) as served, peer_of(served.port) as peer:
        for _ in range(5):
            stream = peer.headers()
            peer.data(stream, framed(b"x" * 50_000), last=True)
            assert (await peer.response(stream)).status == "8"
        assert (await peer.asked(b"next")).message == b"next"


# Pings


async def test_pings_beside_calls_are_answered_and_too_many_in_silence_end_the_connection(served: Hosted) -> None:
    async with peer_of(served.port) as peer:
        for _ in range(20):
            await peer.ping()
            await peer.asked(b"a")
        for _ in range(5):
            peer.send(PingFrame(0, b"12345678"))
        assert codes_of(await peer.end()) == [ENHANCE_YOUR_CALM]
        assert peer.goaways[0].additional_data == b"too_many_pings"


async def test_a_caller_may_measure_its_way_while_a_stream_comes(served: Hosted) -> None:
    async with peer_of(served.port, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 16_384}) as peer:
        stream = peer.call(b"200x20000", MANY)
        while not peer.responses[stream].ended:
            if isinstance(await peer.frame(), DataFrame):
                peer.send(WindowUpdateFrame(stream, window_increment=16_384))
                await peer.ping(b"measured")
        assert peer.responses[stream].status == "0"


async def test_headers_frames_that_never_end_end_the_connection(served: Hosted, other: Peer) -> None:
    async with peer_of(served.port) as peer:
        peer.send(HeadersFrame(1, peer.encoder.encode([(":method", "POST")])))
        peer.write(raw_frame(9, 0, 1, b"\x40\x01x\x7f\x81\x01" + b"y" * 256) * 1_000)
        await peer.end()
    assert (await other.asked(b"after")).message == b"after"
