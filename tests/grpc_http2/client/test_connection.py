"""One connection, against peers that do whatever a server may do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc import StatusCode
from ngh2.events import Event, RequestReceived

from grpc_http2.client.calls.retries import RetryPolicy
from grpc_http2.client.channel import Channel
from grpc_http2.client.settings import ChannelSettings, Pings
from grpc_http2.wire import framed
from tests.builders import PATIENCE
from tests.grpc_http2.client.peers import (
    BOTH,
    HEADERS,
    MANY,
    OK,
    ONE,
    Peer,
    Service,
    codes_of,
    complete,
    each_in_turn,
    echoing,
    error_of,
    grpcio_server,
    one_of,
    peers,
)

MAX_STREAMS, WINDOW = 3, 4
REFUSED_STREAM, CANCEL, CALM = 7, 8, 11
QUICK = ChannelSettings(connect_seconds=0.3, first_backoff_seconds=0.01, max_backoff_seconds=0.02)


def answer(peer: Peer, stream: int) -> None:
    peer.answer(stream)


def nothing(peer: Peer, event: Event) -> None:
    """Ignore the event."""


async def becomes(true: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - tests wait for many conditions
            await asyncio.sleep(0.005)


# The end of a connection.


async def test_a_server_that_leaves_answers_what_it_has_and_the_rest_goes_to_its_next_connection() -> None:
    begun: list[int] = []

    def act(peer: Peer, event: Event) -> None:
        stream = complete(event)
        if stream is None:
            return
        begun.append(stream)
        if len(begun) == 5:
            # The server answers two calls and excludes the other three with its notice.
            peer.engine.send_goaway(0, last_stream_id=3)
            peer.answer(1)
            peer.answer(3)
        elif len(begun) > 5:
            peer.answer(stream)

    async with peers(act) as server, Channel([server.address]) as channel:
        calls = [one_of(channel)(b"x", timeout=PATIENCE) for _ in range(5)]
        assert [await call for call in calls] == [b"answer"] * 5
        assert await one_of(channel)(b"x", timeout=PATIENCE) == b"answer"
        assert len(server.connections) == 2
        await asyncio.wait_for(server.connections[0].lost.wait(), PATIENCE)


async def test_a_notice_of_the_end_fails_no_call() -> None:
    held: list[tuple[Peer, int]] = []

    def act(peer: Peer, event: Event) -> None:
        stream = complete(event)
        if stream is None:
            return
        if len(peer.requests) == 3:
            peer.engine.send_shutdown_notice()
            held.append((peer, stream))
        else:
            peer.answer(stream)

    async with peers(act) as server, Channel([server.address]) as channel:
        for _ in range(2):
            assert await one_of(channel)(b"x", timeout=PATIENCE) == b"answer"
        last = one_of(channel)(b"x", timeout=PATIENCE)
        await becomes(lambda: held)
        assert await one_of(channel)(b"x", timeout=PATIENCE) == b"answer"
        ((peer, stream),) = held
        peer.answer(stream)
        peer.flush()
        assert await last == b"answer"
        assert len(server.connections) == 2
        await asyncio.wait_for(peer.lost.wait(), PATIENCE)


async def test_connections_of_a_server_that_renews_them_all_the_time_fail_no_call() -> None:
    service = Service()
    age = ("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 10_000)
    async with grpcio_server(service, *age) as address, Channel([address]) as channel:
        ended = asyncio.get_running_loop().time() + 2

        async def work() -> int:
            answered = 0
            while asyncio.get_running_loop().time() < ended:
                assert await one_of(channel)(b"x", timeout=PATIENCE) == b"x"
                answered += 1
            return answered

        assert sum(await asyncio.gather(*(work() for _ in range(8)))) > 100


async def test_calls_under_way_fail_when_the_connection_breaks_and_the_next_connects_anew() -> None:
    def act(peer: Peer, event: Event) -> None:
        stream = complete(event)
        if stream is not None and server.requests < 4:
            if server.requests == 3:
                peer.transport.abort()
        elif stream is not None:
            peer.answer(stream)

    async with peers(act) as server, Channel([server.address]) as channel:
        calls = [one_of(channel)(b"x", timeout=PATIENCE) for _ in range(3)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert codes_of(outcomes) == {StatusCode.UNAVAILABLE}
        assert await one_of(channel)(b"x", timeout=PATIENCE) == b"answer"


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 100, b"\xff" * 100_000])
async def test_a_server_that_speaks_something_else_is_unavailable(garbage: bytes) -> None:
    async with peers(nothing, greets=False) as server, Channel([server.address], QUICK) as channel:
        call = one_of(channel)(b"x", timeout=PATIENCE)
        await becomes(lambda: server.connections)
        server.last.transport.write(garbage)
        assert (await error_of(call)).code() is StatusCode.UNAVAILABLE


async def test_a_server_that_breaks_the_rules_in_the_middle_fails_its_calls_at_once() -> None:
    def act(peer: Peer, event: Event) -> None:
        if complete(event) is not None:
            peer.transport.write(b"\x00\x00\x01\x00\x00\x00\x00\x00\x00x")

    async with peers(act) as server, Channel([server.address], QUICK) as channel:
        assert (await error_of(one_of(channel)(b"x", timeout=PATIENCE))).code() is StatusCode.UNAVAILABLE
        await asyncio.wait_for(server.connections[0].lost.wait(), PATIENCE)


async def test_a_server_that_floods_its_callers_fails_its_calls_at_once() -> None:
    def act(peer: Peer, event: Event) -> None:
        if complete(event) is not None and len(server.connections) == 1:
            peer.transport.write((b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + b"12345678") * 10_000)
        else:
            echoing(peer, event)

    async with peers(act) as server, Channel([server.address], QUICK) as channel:
        assert (await error_of(one_of(channel)(b"x", timeout=PATIENCE))).code() is StatusCode.UNAVAILABLE
        assert await one_of(channel)(b"x", timeout=PATIENCE, wait_for_ready=True) == b"answer"
        await asyncio.wait_for(server.connections[0].lost.wait(), PATIENCE)


async def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    async with peers(nothing, greets=False) as server, Channel([server.address], QUICK) as channel:
        assert (await error_of(one_of(channel)(b"x", timeout=PATIENCE))).code() is StatusCode.UNAVAILABLE


async def test_a_server_that_ends_each_connection_at_once_is_not_asked_in_a_circle() -> None:
    def act(peer: Peer, event: Event) -> None:
        if isinstance(event, RequestReceived):
            peer.engine.send_goaway(0, last_stream_id=0)

    async with peers(act) as server, Channel([server.address]) as channel:
        ended = asyncio.get_running_loop().time() + 0.6
        while asyncio.get_running_loop().time() < ended:
            await error_of(one_of(channel)(b"x", timeout=PATIENCE))
        assert len(server.connections) < 12


# Streams.


async def test_a_refused_stream_is_asked_again_without_anybody_noticing() -> None:
    def refuse(peer: Peer, stream: int) -> None:
        peer.engine.reset_stream(stream, REFUSED_STREAM)

    async with peers(each_in_turn(refuse, refuse, answer)) as server, Channel([server.address]) as channel:
        assert await one_of(channel)(b"x", timeout=PATIENCE) == b"answer"
        assert server.requests == 3


async def test_a_server_that_refuses_every_stream_is_not_asked_for_ever() -> None:
    def act(peer: Peer, event: Event) -> None:
        if complete(event) is not None:
            peer.engine.reset_stream(peer.requests[-1].stream_id, REFUSED_STREAM)

    async with peers(act) as server, Channel([server.address]) as channel:
        assert (await error_of(one_of(channel)(b"x", timeout=PATIENCE))).code() is StatusCode.UNAVAILABLE
        assert server.requests < 10


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (0, StatusCode.INTERNAL),
        (1, StatusCode.INTERNAL),
        (CANCEL, StatusCode.CANCELLED),
        (CALM, StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_a_stream_that_is_reset_has_the_status_of_its_error(error: int, code: StatusCode) -> None:
    def reset(peer: Peer, stream: int) -> None:
        peer.engine.reset_stream(stream, error)

    async with peers(each_in_turn(reset)) as server, Channel([server.address]) as channel:
        assert (await error_of(one_of(channel)(b"x", timeout=PATIENCE))).code() is code


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (b"401", StatusCode.UNAUTHENTICATED),
        (b"403", StatusCode.PERMISSION_DENIED),
        (b"404", StatusCode.UNIMPLEMENTED),
        (b"429", StatusCode.UNAVAILABLE),
        (b"502", StatusCode.UNAVAILABLE),
        (b"200", StatusCode.UNKNOWN),
        (b"418", StatusCode.UNKNOWN),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>"])
async def test_an_answer_of_a_web_server_has_the_status_that_grpc_makes_of_it(
    status: bytes, code: StatusCode, body: bytes
) -> None:
    def web(peer: Peer, stream: int) -> None:
        peer.engine.send_response(stream, ((b":status", status), (b"content-type", b"text/html")), end_stream=not body)
        if body:
            peer.engine.send_data(stream, body, end_stream=True)

    async with peers(each_in_turn(web)) as server, Channel([server.address]) as channel:
        assert (await error_of(one_of(channel)(b"x", timeout=PATIENCE))).code() is code


async def test_an_answer_that_ends_early_is_an_error() -> None:
    def act(peer: Peer, event: Event) -> None:
        stream = complete(event)
        if stream is None:
            return
        peer.engine.send_response(stream, HEADERS)
        step = len(peer.requests)
        if step == 1:
            peer.engine.send_data(stream, framed(b"x"), end_stream=True)
        elif step == 2:
            peer.engine.send_data(stream, framed(b"xyz")[:-1])
            peer.engine.send_trailers(stream, OK)
        elif step == 3:
            peer.engine.send_trailers(stream, OK)
        elif step == 4:
            peer.engine.send_data(stream, framed(b"x") + framed(b"y"))
            peer.engine.send_trailers(stream, OK)
        else:
            peer.engine.send_trailers(stream, ((b"something", b"else"),))

    async with peers(act) as server, Channel([server.address]) as channel:
        for _ in range(5):
            error = await error_of(one_of(channel)(b"x", timeout=PATIENCE))
            assert error.code() in (StatusCode.UNKNOWN, StatusCode.INTERNAL)


async def test_messages_may_come_in_any_pieces() -> None:
    def dribble(peer: Peer, stream: int) -> None:
        peer.engine.send_response(stream, HEADERS)
        for byte in framed(b"one") + framed(b"two"):
            peer.engine.send_data(stream, bytes([byte]))
            peer.flush()
        peer.engine.send_data(stream, framed(b"three") + framed(b"") + framed(b"four")[:3])
        peer.flush()
        peer.engine.send_data(stream, framed(b"four")[3:])
        peer.engine.send_trailers(stream, OK)

    async with peers(each_in_turn(dribble)) as server, Channel([server.address]) as channel:
        call = channel.unary_stream(MANY)(b"x", timeout=PATIENCE)
        assert [message async for message in call] == [b"one", b"two", b"three", b"", b"four"]


async def test_a_server_that_answers_before_it_has_read_the_request_is_not_sent_the_rest() -> None:
    def act(peer: Peer, event: Event) -> None:
        if isinstance(event, RequestReceived):
            peer.refuse(event.stream_id, StatusCode.INVALID_ARGUMENT)

    async with peers(act, {WINDOW: 1000}) as server, Channel([server.address]) as channel:
        assert (await error_of(one_of(channel)(b"x" * 1_000_000))).code() is StatusCode.INVALID_ARGUMENT
        await becomes(lambda: server.last.resets)
        assert server.last.received < 100_000
        # The rest of the request did not use up the window of the connection.
        assert (await error_of(one_of(channel)(b"x"))).code() is StatusCode.INVALID_ARGUMENT


async def test_answers_for_streams_that_nobody_waits_for_any_more_disturb_nobody() -> None:
    held: list[int] = []

    def act(peer: Peer, event: Event) -> None:
        stream = complete(event)
        if stream is not None and len(held) < 20:
            held.append(stream)
        elif stream is not None:
            peer.answer(stream)

    async with peers(act) as server, Channel([server.address]) as channel:
        calls = [one_of(channel)(b"x") for _ in range(20)]
        await becomes(lambda: len(held) == 20)
        # The answers are already sent when the callers cancel.
        for stream in held:
            server.last.answer(stream)
        server.last.flush()
        for call in calls:
            call.cancel()
        assert await one_of(channel)(b"x", timeout=PATIENCE) == b"answer"
        assert len(server.connections) == 1


async def test_a_call_that_leaves_resets_its_stream() -> None:
    async with peers(nothing) as server, Channel([server.address]) as channel:
        call = one_of(channel)(b"x")
        await becomes(lambda: server.requests)
        call.cancel()
        await becomes(lambda: server.last.resets)
        assert server.last.resets[0].error_code == CANCEL


async def test_a_call_that_leaves_in_the_turn_that_it_began_in_is_not_sent() -> None:
    async with peers(echoing) as server, Channel([server.address]) as channel:
        await one_of(channel)(b"x")
        one_of(channel)(b"x").cancel()
        await one_of(channel)(b"x")
        assert server.requests == 2


# Limits of the peer.


async def test_calls_beyond_what_a_server_takes_wait_for_their_turn() -> None:
    under_way: set[int] = set()
    most = 0

    def act(peer: Peer, event: Event) -> None:
        nonlocal most
        stream = complete(event)
        if stream is not None:
            under_way.add(stream)
            most = max(most, len(under_way))
            if len(under_way) == 5 or stream > 390:
                for each in sorted(under_way):
                    peer.answer(each)
                under_way.clear()

    async with peers(act, {MAX_STREAMS: 5}) as server, Channel([server.address]) as channel:
        answers = await asyncio.gather(*(one_of(channel)(b"x", timeout=PATIENCE) for _ in range(200)))
        assert set(answers) == {b"answer"}
        assert most == 5


async def test_a_call_that_leaves_makes_room_though_the_server_says_nothing() -> None:
    def act(peer: Peer, event: Event) -> None:
        if complete(event) is not None and len(peer.requests) == 2:
            peer.answer(peer.requests[-1].stream_id)

    async with peers(act, {MAX_STREAMS: 1}) as server, Channel([server.address]) as channel:
        first = one_of(channel)(b"x")
        await becomes(lambda: server.requests)
        second = one_of(channel)(b"x", timeout=PATIENCE)
        first.cancel()
        assert await second == b"answer"


async def test_calls_that_wait_may_leave_and_too_many_are_refused() -> None:
    settings = ChannelSettings(most_waiting=3)
    async with peers(nothing, {MAX_STREAMS: 1}) as server, Channel([server.address], settings) as channel:
        first = one_of(channel)(b"x")
        await becomes(lambda: server.requests)
        waiting = [one_of(channel)(b"x", timeout=0.2 if number else None) for number in range(3)]
        assert (await error_of(one_of(channel)(b"x"))).code() is StatusCode.RESOURCE_EXHAUSTED
        assert (await error_of(waiting[1])).code() is StatusCode.DEADLINE_EXCEEDED
        waiting[0].cancel()
        server.last.answer(1)
        server.last.flush()
        assert await first == b"answer"
        assert server.requests == 1


async def test_a_limit_that_is_raised_lets_those_begin_who_wait() -> None:
    async with peers(echoing, {MAX_STREAMS: 0}) as server, Channel([server.address]) as channel:
        call = one_of(channel)(b"x", timeout=PATIENCE)
        await becomes(lambda: server.connections)
        assert not call.done()
        await asyncio.sleep(0.05)
        server.last.engine.update_settings({MAX_STREAMS: 10})
        server.last.flush()
        assert await call == b"answer"


# Back pressure.


async def test_a_writer_waits_while_the_server_does_not_read() -> None:
    async with peers(nothing, {WINDOW: 0}) as server, Channel([server.address]) as channel:
        call = channel.stream_stream(BOTH)()
        written = 0

        async def write() -> None:
            nonlocal written
            while True:
                await call.write(b"x" * 10_000)
                written += 1

        writing = asyncio.ensure_future(write())
        await becomes(lambda: server.requests)
        await asyncio.sleep(0.2)
        assert written < 20
        server.last.engine.update_settings({WINDOW: 1 << 20})
        server.last.flush()
        await becomes(lambda: written > 50)
        writing.cancel()
        await asyncio.wait([writing])
        assert call.cancelled()


async def test_a_writer_waits_while_the_transport_is_full() -> None:
    async with peers(nothing, {WINDOW: (1 << 31) - 1}) as server, Channel([server.address]) as channel:
        call = channel.stream_stream(BOTH)()
        await call.write(b"x")
        await becomes(lambda: server.connections and server.last.received)
        # The flow-control windows are at their maximum, and the peer does not read from its socket.
        server.last.engine.set_local_window_size((1 << 31) - 1)
        server.last.flush()
        await asyncio.sleep(0.05)
        server.last.transport.pause_reading()
        written = 0

        async def write() -> None:
            nonlocal written
            while True:
                await call.write(b"x" * 100_000)
                written += 1

        writing = asyncio.ensure_future(write())
        await asyncio.sleep(0.5)
        stuck = written
        assert stuck < 200
        server.last.transport.resume_reading()
        await becomes(lambda: written > stuck + 100)
        writing.cancel()
        await asyncio.wait([writing])


async def test_a_writer_waits_for_a_connection_with_little_in_hand() -> None:
    async with peers(nothing, greets=False) as server, Channel([server.address]) as channel:
        call = channel.stream_stream(BOTH)()
        written = 0

        async def write() -> None:
            nonlocal written
            while True:
                await call.write(b"x" * 10_000)
                written += 1

        writing = asyncio.ensure_future(write())
        await becomes(lambda: server.connections)
        await asyncio.sleep(0.05)
        assert written < 20
        writing.cancel()
        await asyncio.wait([writing])


async def test_messages_larger_than_the_window_arrive() -> None:
    service = Service()
    settings = ChannelSettings(stream_window_bytes=65_535, connection_window_bytes=65_535)
    async with grpcio_server(service) as address, Channel([address], settings) as channel:
        many = asyncio.gather(*(one_of(channel)(b"x" * (1 << 20), timeout=PATIENCE) for _ in range(20)))
        assert {len(answer) for answer in await many} == {1 << 20}
        call = channel.unary_stream(MANY)(b"20x500000", timeout=PATIENCE)
        assert [len(answer) async for answer in call] == [500_000] * 20


async def test_an_answer_whose_metadata_are_too_large_fails_its_call_alone() -> None:
    def large(peer: Peer, stream: int) -> None:
        peer.engine.send_response(stream, (*HEADERS, *((b"key-%d" % number, b"v" * 7000) for number in range(6))))
        peer.engine.send_trailers(stream, OK)

    async with peers(each_in_turn(large, answer)) as server, Channel([server.address]) as channel:
        assert (await error_of(one_of(channel)(b"x"))).code() is StatusCode.RESOURCE_EXHAUSTED
        assert await one_of(channel)(b"x") == b"answer"
        assert len(server.connections) == 1


# Keepalive.


async def test_a_server_that_falls_silent_is_found_with_calls_and_without() -> None:
    settings = ChannelSettings(pings=Pings(0.05, 0.1), first_backoff_seconds=5, max_backoff_seconds=5)
    for with_call in (True, False):
        async with peers(echoing) as server, Channel([server.address], settings) as channel:
            await one_of(channel)(b"x")
            peer = server.last
            await becomes(lambda peer=peer: peer.pings > 2)
            peer.transport.pause_reading()
            if with_call:
                assert (await error_of(one_of(channel)(b"x", timeout=PATIENCE))).code() is StatusCode.UNAVAILABLE
            else:
                await becomes(lambda channel=channel: channel.get_state().name == "TRANSIENT_FAILURE")
            # The server hangs, so calls fail without waiting for the connection.
            assert (await error_of(one_of(channel)(b"x", timeout=PATIENCE))).code() is StatusCode.UNAVAILABLE


async def test_a_server_that_is_talked_with_needs_no_pings_and_one_that_wants_none_gets_none() -> None:
    async with peers(echoing) as server, Channel([server.address]) as channel:
        await one_of(channel)(b"x")
        await asyncio.sleep(0.2)
        assert server.last.pings == 0
    async with (
        peers(echoing) as server,
        Channel([server.address], ChannelSettings(pings=Pings(0.2, 5.0))) as channel,
    ):
        for _ in range(60):
            await one_of(channel)(b"x")
            await asyncio.sleep(0.01)
        assert server.last.pings <= 1


async def test_a_policy_of_repetitions_is_of_no_use_to_a_call_that_is_answered() -> None:
    settings = ChannelSettings(retries=RetryPolicy())
    async with peers(echoing) as server, Channel([server.address], settings) as channel:
        assert await channel.unary_unary(ONE)(b"x") == b"answer"
        assert server.requests == 1
