"""Bounds on the memory that callers may use: metadata, messages, streams, connections and unread answers."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from grpc import StatusCode
from hyperframe.frame import SettingsFrame, WindowUpdateFrame

from grpc_http2.wire import framed
from tests.builders import PATIENCE
from tests.grpc_http2.server.peers import ConnectionEnded, Peer, codes_of, peer_of
from tests.grpc_http2.server.service import BOTH, MANY, ONE, SUM, hosted

OK, EXHAUSTED, LATE = "0", str(StatusCode.RESOURCE_EXHAUSTED.value[0]), str(StatusCode.DEADLINE_EXCEEDED.value[0])
UNIMPLEMENTED = str(StatusCode.UNIMPLEMENTED.value[0])
PROTOCOL_ERROR, REFUSED_STREAM = 1, 7
MEGABYTE = 1 << 20


async def becomes(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - the server is observed from outside
            await asyncio.sleep(0.001)


# Metadata


async def test_too_many_metadata_fail_their_call_and_the_others_go_on() -> None:
    async with hosted(max_metadata_bytes=8_000) as served, peer_of(served.port) as peer:
        under_way = peer.call(b"wait")
        for size in (8_000, 20_000, 30_000):
            refused = await peer.asked(b"a", ONE, ("large", "x" * size))
            assert refused.status == EXHAUSTED
            assert "8000" in refused.headers["grpc-message"]
        assert (await peer.asked(b"next", ONE, ("large", "x" * 7_000))).message == b"next"
        served.service.may_answer.set()
        assert (await peer.response(under_way)).message == b"wait"
        assert peer.settings[SettingsFrame.MAX_HEADER_LIST_SIZE] == 8_000
        assert served.service.calls == 2


async def test_a_block_of_headers_beyond_all_measure_ends_its_connection_alone() -> None:
    async with hosted(max_metadata_bytes=8_000) as served, peer_of(served.port) as peer, peer_of(served.port) as other:
        peer.headers(ONE, ("large", "x" * 100_000))
        await peer.end()
        assert (await other.asked(b"a")).message == b"a"


# Messages


@pytest.mark.parametrize("path", [ONE, SUM])
async def test_a_message_is_refused_when_it_is_announced_before_it_is_kept(path: str) -> None:
    async with hosted(max_message_bytes=1_000) as served, peer_of(served.port) as peer:
        stream = peer.headers(path)
        peer.data(stream, b"\0" + (1_001).to_bytes(4, "big"))
        assert (await peer.response(stream)).status == EXHAUSTED
        assert (await peer.asked(b"x" * 1_000, path)).status == OK
        assert served.server.held_bytes == 0


# 1 KB that decompresses to a megabyte.
BOMB = gzip.compress(b"\0" * MEGABYTE)
BOMBS = (b"\1" + len(BOMB).to_bytes(4, "big") + BOMB) * 15


@pytest.mark.parametrize("path", [ONE, SUM])
async def test_small_messages_that_are_large_once_they_are_opened_are_opened_one_by_one(path: str) -> None:
    async with hosted() as served, peer_of(served.port) as peer:
        await peer.ping()
        tracemalloc.start()
        stream = peer.headers(path, ("grpc-encoding", "gzip"))
        if path == SUM:
            peer.data(stream, framed(b"wait") + BOMBS)
            await asyncio.wait_for(served.service.begun.wait(), PATIENCE)
            await peer.ping()
        else:
            peer.data(stream, BOMBS, last=True)
            assert (await peer.response(stream)).status == UNIMPLEMENTED
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 4 * MEGABYTE


async def test_uploads_are_bounded_in_sum_and_what_is_over_is_refused() -> None:
    bound = 100_000
    async with hosted(max_message_bytes=20_000, max_buffered_bytes=bound) as served, peer_of(served.port) as peer:
        streams = [peer.headers() for _ in range(20)]
        for stream in streams:
            peer.data(stream, framed(b"x" * 15_000)[:-1])
        # A ping acknowledgement may arrive before an answer, hence two pings.
        await peer.ping()
        await peer.ping()
        assert served.server.held_bytes <= bound + 2 * 20_000
        held = [stream for stream in streams if not peer.responses[stream].ended]
        assert 1 < len(held) < 10
        assert {peer.responses[stream].status for stream in streams if stream not in held} == {EXHAUSTED}
        for stream in held:
            peer.data(stream, b"x", last=True)
            assert (await peer.response(stream)).status == OK
        assert served.server.held_bytes == 0


async def test_one_caller_does_not_take_all_that_is_there_for_uploads() -> None:
    async with (
        hosted(max_message_bytes=20_000, max_buffered_connection_bytes=50_000) as served,
        peer_of(served.port) as greedy,
        peer_of(served.port) as other,
    ):
        for stream in [greedy.headers() for _ in range(100)]:
            greedy.data(stream, framed(b"x" * 15_000)[:-1])
        await greedy.ping()
        assert served.server.held_bytes <= 80_000
        assert (await other.asked(b"x" * 15_000)).status == OK


async def test_what_a_caller_sends_ahead_of_a_reader_is_bounded_by_the_window_and_flows_as_it_is_read() -> None:
    async with hosted(stream_window_bytes=100_000) as served, peer_of(served.port) as peer:
        await peer.ping()
        stream = peer.headers(SUM)
        peer.data(stream, framed(b"wait"))
        for _ in range(9):
            peer.data(stream, framed(b"x" * 10_000))
        await peer.ping()
        assert peer.settings[SettingsFrame.INITIAL_WINDOW_SIZE] == 100_000
        # The method does not read, so the server does not enlarge the window.
        assert peer.windows[stream] < 50_000
        served.service.may_answer.set()
        peer.data(stream, framed(b"x"), last=True)
        assert (await peer.response(stream)).message == b"90005"


async def test_a_request_that_does_not_come_ends_its_call() -> None:
    async with hosted(request_seconds=0.6) as served, peer_of(served.port) as peer:
        begun, silent, streaming = peer.headers(), peer.headers(), peer.headers(SUM)
        peer.data(begun, framed(b"a")[:3])
        for stream in (begun, silent):
            assert (await peer.response(stream)).status == LATE
        peer.data(streaming, framed(b"a"), last=True)
        assert (await peer.response(streaming)).status == OK
        assert served.service.calls == 0


async def test_a_deadline_ends_a_call_whose_request_has_not_come() -> None:
    async with hosted() as served, peer_of(served.port) as peer:
        stream = peer.headers(ONE, ("grpc-timeout", "1m"))
        assert (await peer.response(stream)).status == LATE
        assert served.service.calls == 0


# Streams and connections


async def test_the_bound_on_streams_is_told_and_kept() -> None:
    async with hosted(max_streams=5) as served, peer_of(served.port) as peer, peer_of(served.port) as other:
        streams = [peer.call(b"wait") for _ in range(5)]
        await peer.ping()
        assert peer.settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == 5
        peer.call(b"too many")
        try:
            while not any(response.reset for response in peer.responses.values()):
                await peer.frame()
        except ConnectionEnded:
            assert codes_of(peer.goaways) == [PROTOCOL_ERROR]
        assert served.service.calls == len(streams)
        assert (await other.asked(b"a")).message == b"a"


async def test_a_connection_too_many_is_closed_and_one_that_ends_makes_room() -> None:
    async with hosted(max_connections=2) as served:
        async with peer_of(served.port) as first, peer_of(served.port) as second:
            await first.asked(b"a")
            await second.asked(b"a")
            with pytest.raises(ConnectionEnded):
                async with peer_of(served.port) as third:
                    await third.asked(b"a")
            assert (await first.asked(b"a")).message == b"a"
        await becomes(lambda: not served.server.connections)
        async with peer_of(served.port) as next_one:
            assert (await next_one.asked(b"a")).message == b"a"


# Callers who do not read


@pytest.mark.parametrize("window", [65_535, 1 << 30], ids=["behind the window", "behind the socket"])
async def test_a_slow_reader_of_a_stream_of_a_hundred_megabytes_costs_less_than_one(window: int) -> None:
    async with hosted() as served, peer_of(served.port, settings={SettingsFrame.INITIAL_WINDOW_SIZE: window}) as peer:
        tracemalloc.start()
        stream = peer.call(b"1000x100000", MANY)
        sent = -1
        while sent != served.service.sent:
            sent = served.service.sent
            await asyncio.sleep(0.2)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # The socket buffers of both sides hold several megabytes.
        assert sent < 30 * MEGABYTE
        assert held < MEGABYTE
        (connection,) = served.server._connections
        assert connection._engine.queued_body_size() < MEGABYTE
        # The first read makes room, and the stream continues.
        peer.send(WindowUpdateFrame(stream, window_increment=10 * MEGABYTE))
        await peer.frame()
        while served.service.sent == sent:
            await peer.frame()
        peer.close()
        await asyncio.wait_for(served.service.ended.wait(), PATIENCE)


async def test_calls_of_one_who_does_not_read_wait_with_the_answers_that_are_there() -> None:
    limits: dict[str, Any] = {"max_unsent_connection_bytes": 100_000, "max_buffered_connection_bytes": 100_000}
    async with (
        hosted(max_message_bytes=50_000, min_ping_seconds=0.0, **limits) as served,
        peer_of(served.port) as other,
        peer_of(served.port, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as peer,
    ):
        streams = []
        for _ in range(100):
            streams.append(peer.call(b"size 20000"))
            await peer.ping()
        assert served.service.calls < 20
        # Requests that wait behind the unread answers do not fill the memory either.
        more = [peer.call(b"x" * 15_000) for _ in range(50)]
        await peer.ping()
        await peer.ping()
        assert served.server.held_bytes < 200_000
        assert (await other.asked(b"a")).message == b"a"
        peer.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 20}))
        for stream in streams:
            assert len((await peer.response(stream)).message) == 20_000
        statuses = [(await peer.response(stream)).status for stream in more]
        assert set(statuses) == {OK, EXHAUSTED}
        assert statuses[0] == OK


async def test_one_who_leaves_without_reading_leaves_nothing() -> None:
    async with hosted() as served:
        for _ in range(3):
            async with peer_of(served.port, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as peer:
                for _ in range(20):
                    peer.call(b"x" * 20_000)
                peer.call(b"10x10", MANY)
                await peer.ping()
        await becomes(lambda: not served.server.connections and not served.server._tasks)
        assert served.server.held_bytes == 0


async def test_a_connection_that_is_closed_and_not_read_ends_all_the_same() -> None:
    async with hosted(max_ping_strikes=0) as served, Unread(served.port) as peer:
        peer.call(b"50x100000", MANY)
        await becomes(lambda: served.service.sent)
        for _ in range(3):
            peer.call(b"a")
            peer.write(b"\0\0\x08\x06\0\0\0\0\0" + b"12345678" + b"\0\0\x08\x06\0\0\0\0\0" + b"12345678")
        await becomes(lambda: not served.server.connections)


class Unread:
    """A connection whose peer reads nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._peer: Peer | None = None

    async def __aenter__(self) -> Peer:
        self._peer = await Peer.connect(self._port)
        transport = self._peer.writer.transport
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "pause_reading")
        transport.pause_reading()
        return self._peer

    async def __aexit__(self, *_: object) -> None:
        assert self._peer is not None
        self._peer.close()


async def test_pings_between_small_messages_of_a_stream_measure_the_path_and_are_borne() -> None:
    async with hosted() as served, peer_of(served.port) as peer:
        stream = peer.headers(BOTH)
        for number in range(1, 21):
            peer.data(stream, framed(b"a"))
            while len(peer.responses[stream].body) < 6 * number:
                await peer.frame()
            await peer.ping()
        peer.data(stream, b"", last=True)
        assert (await peer.response(stream)).status == OK
