"""Timeouts and the end of connections: silence, age and drain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from hyperframe.frame import GoAwayFrame, PingFrame

from grpc_http2.wire import framed
from tests.builders import PATIENCE, channel_to
from tests.grpc_http2.frames import PREFACE
from tests.grpc_http2.server.peers import ConnectionEnded, Peer, codes_of, peer_of
from tests.grpc_http2.server.service import BOTH, ONE, hosted

OK, NO_ERROR = "0", 0
LAST = (1 << 31) - 1


async def becomes(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - the server is observed from outside
            await asyncio.sleep(0.001)


# The start of a connection


@pytest.mark.parametrize("said", [b"", PREFACE[:3], PREFACE[:10]], ids=["nothing", "three bytes", "half a preface"])
async def test_a_connection_that_does_not_say_what_it_wants_is_closed(said: bytes) -> None:
    async with hosted(handshake_seconds=0.2, keepalive_seconds=0.2, keepalive_timeout_seconds=0.2) as served:
        async with peer_of(served.port, greets=False) as peer:
            peer.write(said)
            assert await peer.end() == []
        assert not served.server.opening
        await becomes(lambda: not served.server.connections)


async def test_a_preface_may_come_byte_by_byte() -> None:
    async with hosted() as served, peer_of(served.port, greets=False) as peer:
        for byte in PREFACE + b"\0\0\0\4\0\0\0\0\0":
            peer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await peer.asked(b"a")).message == b"a"


# Silence


async def test_a_silent_caller_is_asked_for_a_sign_of_life_and_kept_while_it_gives_one() -> None:
    async with hosted(keepalive_seconds=0.05, keepalive_timeout_seconds=10.0) as served, peer_of(served.port) as peer:
        while len(peer.pings) < 3:
            await peer.frame()
        assert (await peer.asked(b"a")).message == b"a"


async def test_a_caller_that_gives_no_sign_of_life_is_ended_with_its_calls() -> None:
    async with hosted(keepalive_seconds=0.05, keepalive_timeout_seconds=0.1) as served, peer_of(served.port) as peer:
        peer.answers_pings = False
        peer.call(b"wait")
        await peer.end()
        await asyncio.wait_for(served.service.ended.wait(), PATIENCE)


# Age


async def test_a_connection_is_renewed_at_its_age_and_its_calls_end_well() -> None:
    async with hosted(connection_age_seconds=0.1) as served, peer_of(served.port) as peer:
        under_way = peer.call(b"wait")
        while not peer.goaways:
            await peer.frame()
        # Calls that cross the notice on the wire are served.
        late = peer.call(b"late")
        assert (await peer.response(late)).message == b"late"
        served.service.may_answer.set()
        assert (await peer.response(under_way)).message == b"wait"
        farewells = await peer.end()
        assert codes_of(farewells) == [NO_ERROR, NO_ERROR]
        assert [farewell.last_stream_id for farewell in farewells] == [LAST, late]


async def test_a_call_that_outlasts_the_grace_of_its_connection_ends_with_it() -> None:
    async with (
        hosted(connection_age_seconds=0.1, connection_grace_seconds=0.1) as served,
        peer_of(served.port) as peer,
    ):
        peer.call(b"wait")
        await peer.end()
        await asyncio.wait_for(served.service.ended.wait(), PATIENCE)


# The drain


async def test_a_drain_says_a_notice_waits_and_loses_no_call() -> None:
    async with hosted() as served, peer_of(served.port) as peer:
        under_way = peer.call(b"wait")
        await asyncio.wait_for(served.service.begun.wait(), PATIENCE)
        stopping = asyncio.ensure_future(served.server.stop(PATIENCE))
        peer.answers_pings = False
        frame = await peer.frame()
        while not isinstance(frame, GoAwayFrame):
            frame = await peer.frame()
        assert frame.last_stream_id == LAST
        late = peer.call(b"late")
        assert (await peer.response(late)).message == b"late"
        peer.send(*(PingFrame(0, data, flags=["ACK"]) for data in peer.pings))
        while len(peer.goaways) < 2:
            await peer.frame()
        assert peer.goaways[1].last_stream_id == late
        assert not stopping.done()
        served.service.may_answer.set()
        assert (await peer.response(under_way)).message == b"wait"
        await peer.end()
        await asyncio.wait_for(stopping, PATIENCE)


async def test_calls_that_come_together_with_the_answer_to_the_farewell_are_served() -> None:
    async with hosted() as served, peer_of(served.port) as peer:
        await peer.asked(b"before")
        peer.answers_pings = False
        stopping = asyncio.ensure_future(served.server.stop(PATIENCE))
        while not peer.pings:
            await peer.frame()
        with peer.gathering() as together:
            peer.send(PingFrame(0, peer.pings[0], flags=["ACK"]))
            streams = [peer.call(str(number).encode()) for number in range(8)]
        peer.writer.write(bytes(together))
        assert [(await peer.response(stream)).message for stream in streams] == [
            str(number).encode() for number in range(8)
        ]
        await peer.end()
        await stopping


async def test_a_caller_that_answers_no_ping_hears_the_last_word_all_the_same() -> None:
    async with hosted() as served, peer_of(served.port) as peer:
        peer.answers_pings = False
        await peer.asked(b"a")
        await asyncio.wait_for(served.server.stop(PATIENCE), PATIENCE / 2)
        assert codes_of(await peer.end()) == [NO_ERROR, NO_ERROR]


async def test_connections_that_are_being_made_while_a_drain_begins_are_served() -> None:
    async with hosted() as served:
        peers = [await Peer.connect(served.port, greets=False) for _ in range(5)]
        stopping = asyncio.ensure_future(served.server.stop(PATIENCE))
        await asyncio.sleep(0)
        for peer in peers:
            peer.write(PREFACE + b"\0\0\0\4\0\0\0\0\0")
            assert (await peer.asked(b"a")).message == b"a"
            assert codes_of(await peer.end())[-1] == NO_ERROR
        await asyncio.wait_for(stopping, PATIENCE)


async def test_one_that_connects_and_says_nothing_does_not_hold_up_the_end() -> None:
    async with hosted(handshake_seconds=PATIENCE) as served, peer_of(served.port, greets=False) as peer:
        await becomes(lambda: served.server.opening)
        await asyncio.wait_for(served.server.stop(PATIENCE), PATIENCE / 2)
        await peer.end()


async def test_a_second_stop_in_a_hurry_ends_the_first() -> None:
    async with hosted() as served, peer_of(served.port) as peer:
        peer.call(b"wait")
        await asyncio.wait_for(served.service.begun.wait(), PATIENCE)
        first = asyncio.ensure_future(served.server.stop(3600.0))
        await asyncio.sleep(0)
        await served.server.stop(0.0)
        await asyncio.wait_for(first, PATIENCE)
        assert served.service.ended.is_set()


async def test_callers_who_never_cease_lose_no_call_in_a_drain() -> None:
    """Each call is answered, or was never taken, and then the client retries it elsewhere."""
    async with hosted() as served, channel_to(served.address) as channel:
        call: Any = channel.unary_unary(ONE)
        answered = 0

        async def ask() -> str:
            nonlocal answered
            while True:
                try:
                    await call(b"a", timeout=PATIENCE)
                except grpc.aio.AioRpcError as error:
                    return error.code().name
                answered += 1

        callers = [asyncio.ensure_future(ask()) for _ in range(20)]
        await becomes(lambda: answered > 200)
        await served.server.stop(PATIENCE)
        codes = await asyncio.gather(*callers)
        assert set(codes) == {"UNAVAILABLE"}
        assert served.service.calls == answered


async def test_a_stream_goes_on_during_a_drain_until_its_caller_ends_it() -> None:
    async with hosted() as served, peer_of(served.port) as peer:
        stream = peer.headers(BOTH)
        peer.data(stream, framed(b"before"))
        await peer.ping()
        stopping = asyncio.ensure_future(served.server.stop(PATIENCE))
        while len(peer.goaways) < 2:
            await peer.frame()
        peer.data(stream, framed(b"after"), last=True)
        response = await peer.response(stream)
        assert (response.status, response.body) == (OK, framed(b"before") + framed(b"after"))
        await asyncio.wait_for(stopping, PATIENCE)
        with pytest.raises((ConnectionEnded, OSError)):
            await Peer.connect(served.port)
