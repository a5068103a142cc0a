"""Connections whose reads are repeatedly without use are then read one after the other."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from hyperframe.frame import DataFrame, Frame, SettingsFrame, WindowUpdateFrame

from grpc_http2.server.connection import ServerConnection
from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.protection.idle_reads import IdleReadQueue, IdleReads
from grpc_http2.wire import framed
from tests.builders import PATIENCE
from tests.end_to_end.transports.certificates import Authority
from tests.grpc_http2.server.peers import peer_of
from tests.grpc_http2.server.service import BOTH, MANY, ONE, SUM, hosted
from tests.grpc_http2.server.test_tls import calling, serving

LIMITS: Final = ServerLimits(idle_reads=32, idle_reads_per_second=0.1, idle_reads_per_second_of_all=100)
FRAME_BYTES: Final = 9 + (16 << 10)
NEARLY_NEVER: Final[dict[str, Any]] = {
    "idle_reads": 4,
    "idle_reads_per_second": 0,
    "idle_reads_per_second_of_all": 0.01,
}


def borne(reads: IdleReads, now: float = 0.0) -> int:
    """Return the number of reads of ten bytes without use before the first that is too much."""
    number = 0
    while not reads.is_too_much(10, 10, now):
        number += 1
    return number


# Allowance of one connection


def test_a_connection_has_a_few_reads_without_use() -> None:
    assert borne(IdleReads(LIMITS, 0.0)) == 31


@pytest.mark.parametrize("size", [1_448, 2_048, 4_096])
def test_a_large_frame_may_come_in_parts_and_is_of_use_as_a_whole(size: int) -> None:
    reads = IdleReads(LIMITS, 0.0)
    for _ in range(100):
        for _ in range(0, FRAME_BYTES - size, size):
            assert not reads.is_too_much(size, size, 0.0)
        reads.credit += FRAME_BYTES - size


def test_reads_that_bring_much_of_use_cost_nothing() -> None:
    reads = IdleReads(LIMITS, 0.0)
    assert not any(reads.is_too_much(2_048, 0, 0.0) for _ in range(1_000))


def test_what_is_of_use_earns_more_but_no_more_than_a_connection_has_at_first() -> None:
    reads = IdleReads(LIMITS, 0.0)
    borne(reads)
    reads.earn(64 << 10)
    assert borne(reads) == 4
    reads.earn(1 << 30)
    assert borne(reads) == 31


def test_time_earns_more() -> None:
    reads = IdleReads(LIMITS, 0.0)
    borne(reads)
    assert borne(reads, 100.0) == 9


# All connections together


def test_those_who_have_none_left_are_read_at_one_rate_together() -> None:
    queue = IdleReadQueue(LIMITS)
    assert [queue.wait(0, 0.0) for _ in range(4)] == pytest.approx([0.0, 0.01, 0.02, 0.03])


def test_a_read_counts_for_more_where_it_brings_much_without_use() -> None:
    queue = IdleReadQueue(LIMITS)
    assert [queue.wait(1_152, 0.0) for _ in range(4)] == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_nobody_waits_where_little_comes_in_the_time() -> None:
    queue = IdleReadQueue(LIMITS)
    assert [queue.wait(500, float(second)) for second in range(5)] == [0.0] * 5


def test_a_wait_has_a_bound_however_many_there_are() -> None:
    queue = IdleReadQueue(LIMITS)
    assert max(queue.wait(2_000, 0.0) for _ in range(1_000)) <= 5.0


# Connections


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[ServerConnection]:
    """Return the number of reads of each connection."""
    counted: Counter[ServerConnection] = Counter()
    updated = ServerConnection.buffer_updated

    def counting(self: ServerConnection, nbytes: int) -> None:
        counted[self] += 1
        updated(self, nbytes)

    monkeypatch.setattr(ServerConnection, "buffer_updated", counting)
    return counted


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the bytes without use of each read that had to be queued for."""
    found: list[int] = []

    def waiting(self: IdleReadQueue, idle: int, now: float) -> float:
        del self, now
        found.append(idle)
        return 0.0

    monkeypatch.setattr(IdleReadQueue, "wait", waiting)
    return found


@dataclass(frozen=True)
class Ways:
    """TLS contexts of a server and of its callers; both ``None`` in clear text."""

    tls: ssl.SSLContext | None = None
    caller: ssl.SSLContext | None = None


@pytest.fixture(params=["in clear", "over TLS"])
def ways(request: pytest.FixtureRequest, tmp_path: Path) -> Ways:
    if request.param == "in clear":
        return Ways()
    authority = Authority(tmp_path, "authority")
    return Ways(serving(authority.signed("server")), calling(authority, "h2"))


WITHOUT_USE: Final[dict[str, Callable[[int], Frame]]] = {
    "part of a message": lambda stream: DataFrame(stream, b"x"),
    "part of a message that could be one": lambda stream: DataFrame(stream, b"\0" * 5),
    "room": lambda stream: WindowUpdateFrame(stream, window_increment=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", WITHOUT_USE)
async def test_many_slow_writers_are_read_seldom_and_their_neighbour_as_ever(
    ways: Ways, reads: Counter[ServerConnection], kind: str
) -> None:
    async with hosted(tls=ways.tls, **NEARLY_NEVER) as served, AsyncExitStack() as stack:
        writers = [await stack.enter_async_context(peer_of(served.port, tls=ways.caller)) for _ in range(10)]
        for writer in writers:
            writer.headers(stream=1)
            writer.data(1, framed(b"x" * 10_000)[:1_000])
            await writer.ping()
        neighbour = await stack.enter_async_context(peer_of(served.port, tls=ways.caller))
        reads.clear()
        for _ in range(50):
            for writer in writers:
                writer.send(WITHOUT_USE[kind](1))
            # By the time of this answer, the server has read all writers that need not wait.
            assert (await neighbour.asked(b"a")).message == b"a"
        mine = max(reads.values())
        others = sorted(reads.values())[:-1]
    assert mine >= 50
    assert max(others, default=0) < 15


async def test_tls_gathers_nothing_of_connections_that_are_not_read(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    caller = calling(authority, "h2")
    async with (
        hosted(tls=serving(authority.signed("server")), **NEARLY_NEVER) as served,
        peer_of(served.port, tls=caller) as writer,
        peer_of(served.port, tls=caller) as neighbour,
    ):
        transports: list[Any] = [connection._transport for connection in served.server._connections]
        writer.headers(stream=1)
        for _ in range(100):
            writer.send(DataFrame(1, b"x"))
            await neighbour.asked(b"a")
        assert max(transport.get_read_buffer_size() for transport in transports) < 200


async def test_a_slow_writer_comes_to_its_answer_and_is_read_as_ever_afterwards(ways: Ways) -> None:
    limits: dict[str, Any] = {"idle_reads_per_second": 0, "idle_reads_per_second_of_all": 500.0}
    async with (
        hosted(tls=ways.tls, **limits) as served,
        peer_of(served.port, tls=ways.caller) as writer,
        peer_of(served.port, tls=ways.caller) as neighbour,
    ):
        stream = writer.headers()
        message = framed(b"x" * 100)
        for at in range(len(message)):
            writer.data(stream, message[at : at + 1], last=at == len(message) - 1)
            await neighbour.asked(b"a")
        assert (await writer.response(stream)).message == b"x" * 100
        for _ in range(3):
            assert (await writer.asked(b"y" * 200_000)).message == b"y" * 200_000


async def test_a_server_ends_though_connections_are_not_read(ways: Ways) -> None:
    async with (
        hosted(tls=ways.tls, **NEARLY_NEVER) as served,
        peer_of(served.port, tls=ways.caller) as writer,
        peer_of(served.port, tls=ways.caller) as neighbour,
    ):
        for _ in range(20):
            writer.send(WindowUpdateFrame(0, window_increment=1))
            await neighbour.asked(b"a")
        ended = asyncio.ensure_future(asyncio.gather(writer.end(), neighbour.end()))
        await asyncio.wait_for(served.server.stop(10 * PATIENCE), PATIENCE)
        await asyncio.wait_for(ended, PATIENCE)


# Honest callers that use gRPC's own client


def _one(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    return channel.unary_unary(ONE)


async def in_turn(channel: grpc.aio.Channel) -> None:
    one = _one(channel)
    for _ in range(300):
        assert await one(b"a") == b"a"


async def at_once(channel: grpc.aio.Channel) -> None:
    one = _one(channel)
    assert await asyncio.gather(*(one(b"a") for _ in range(500))) == [b"a"] * 500


async def uploads(channel: grpc.aio.Channel) -> None:
    one = _one(channel)
    sizes = [20_000, 1_000_000] * 10
    answers = await asyncio.gather(*(one(b"a" * size) for size in sizes))
    assert [len(answer) for answer in answers] == sizes


async def large_answers(channel: grpc.aio.Channel) -> None:
    one = _one(channel)
    for _ in range(30):
        assert len(await one(b"size 1000000")) == 1_000_000


async def many_small_messages(channel: grpc.aio.Channel) -> None:
    method: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(SUM)
    call = method()
    for _ in range(10_000):
        await call.write(b"a")
    await call.done_writing()
    assert await call == b"10000"


async def small_messages_both_ways(channel: grpc.aio.Channel) -> None:
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(BOTH)
    call = method()
    for _ in range(500):
        await call.write(b"a")
        assert await call.read() == b"a"
    await call.done_writing()


async def many_small_answers(channel: grpc.aio.Channel) -> None:
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(MANY)
    assert len([answer async for answer in method(b"3000x10")]) == 3_000


async def large_metadata(channel: grpc.aio.Channel) -> None:
    one = _one(channel)
    for number in range(100):
        assert await one(b"a", metadata=(("token", f"{number:05}" * 1_000),)) == b"a"


async def cancelled_calls(channel: grpc.aio.Channel) -> None:
    one = _one(channel)
    for _ in range(300):
        call = one(b"wait")
        await asyncio.sleep(0)
        call.cancel()
    assert await one(b"a") == b"a"


HONEST: Final[list[Callable[[grpc.aio.Channel], Awaitable[None]]]] = [
    in_turn, at_once, uploads, large_answers, many_small_messages, small_messages_both_ways, many_small_answers,
    large_metadata, cancelled_calls,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("calls", HONEST)
async def test_callers_who_use_their_connection_never_wait_for_a_place(
    calls: Callable[[grpc.aio.Channel], Awaitable[None]], waits: list[int]
) -> None:
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
    async with hosted() as served, grpc.aio.insecure_channel(served.address, options=options) as channel:
        await calls(channel)
    assert waits == []


async def test_who_makes_room_for_each_part_of_a_large_answer_never_waits_for_a_place(waits: list[int]) -> None:
    async with hosted() as served, peer_of(served.port, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 16_384}) as peer:
        stream = peer.call(b"size 2000000")
        while not peer.responses[stream].ended:
            frame = await peer.frame()
            if isinstance(frame, DataFrame) and frame.data:
                peer.send(WindowUpdateFrame(stream, window_increment=len(frame.data)))
    assert waits == []


async def test_who_makes_room_for_each_small_message_never_waits_for_a_place(waits: list[int]) -> None:
    async with hosted() as served, peer_of(served.port) as peer, peer_of(served.port) as neighbour:
        stream = peer.headers(BOTH)
        for number in range(200):
            peer.data(stream, framed(b"a"))
            while len(peer.responses[stream].body) < 6 * (number + 1):
                await peer.frame()
            peer.send(WindowUpdateFrame(stream, window_increment=1))
            # The answer separates the read of the window update from that of the next message.
            await neighbour.asked(b"a")
    assert waits == []


async def test_what_a_caller_sends_before_it_hears_of_a_refusal_does_not_make_it_wait(waits: list[int]) -> None:
    async with hosted(max_message_bytes=1_000, stream_window_bytes=65_535) as served, peer_of(served.port) as peer:
        for _ in range(10):
            stream = peer.headers()
            peer.data(stream, framed(b"x" * 60_000), last=True)
            assert (await peer.response(stream)).status == "8"
    assert waits == []


async def test_a_refusal_is_no_leave_for_tiny_reads(waits: list[int]) -> None:
    async with (
        hosted(max_message_bytes=1_000) as served,
        peer_of(served.port) as peer,
        peer_of(served.port) as neighbour,
    ):
        stream = peer.headers()
        peer.data(stream, framed(b"x" * 2_000))
        assert (await peer.response(stream)).status == "8"
        for _ in range(100):
            peer.send(DataFrame(stream, b"x"))
            await neighbour.asked(b"a")
    assert len(waits) > 10
