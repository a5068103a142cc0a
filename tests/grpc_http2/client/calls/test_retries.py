"""Which calls are retried, and which are not."""

from __future__ import annotations

import asyncio

import pytest
from grpc import StatusCode
from ngh2.events import Event

from grpc_http2.client.calls.retries import RetryBudget, RetryPolicy
from grpc_http2.client.channel import Channel
from grpc_http2.client.settings import ChannelSettings
from tests.builders import PATIENCE, free_port
from tests.grpc_http2.client.peers import (
    HEADERS,
    MANY,
    SUM,
    Peer,
    codes_of,
    complete,
    each_in_turn,
    error_of,
    one_of,
    peers,
)

SETTINGS = ChannelSettings(retries=RetryPolicy(), first_backoff_seconds=0.01, max_backoff_seconds=0.05)
PUSHBACK = b"grpc-retry-pushback-ms"


def unavailable(peer: Peer, stream: int) -> None:
    peer.refuse(stream, StatusCode.UNAVAILABLE)


def answer(peer: Peer, stream: int) -> None:
    peer.answer(stream)


async def test_what_is_unavailable_is_asked_again() -> None:
    async with peers(each_in_turn(unavailable, unavailable, answer)) as server:
        async with Channel([server.address], SETTINGS) as channel:
            assert await one_of(channel)(b"x", timeout=PATIENCE) == b"answer"
        assert server.requests == 3


async def test_four_attempts_are_made_and_the_last_failure_is_told() -> None:
    async with peers(each_in_turn(unavailable)) as server, Channel([server.address], SETTINGS) as channel:
        error = await error_of(one_of(channel)(b"x", timeout=PATIENCE))
        assert (error.code(), error.details()) == (StatusCode.UNAVAILABLE, "refused")
        assert server.requests == 4


async def test_a_connection_that_breaks_is_another_attempt() -> None:
    def break_off(peer: Peer, _: int) -> None:
        peer.transport.abort()

    async with peers(each_in_turn(break_off, break_off, answer)) as server:
        async with Channel([server.address], SETTINGS) as channel:
            assert await one_of(channel)(b"x", timeout=PATIENCE) == b"answer"
        assert len(server.connections) == 3


@pytest.mark.parametrize(
    "code", [code for code in StatusCode if code not in (StatusCode.OK, StatusCode.UNAVAILABLE)], ids=lambda it: it.name
)
async def test_no_other_status_is_asked_again(code: StatusCode) -> None:
    def refuse(peer: Peer, stream: int) -> None:
        peer.refuse(stream, code)

    async with peers(each_in_turn(refuse)) as server, Channel([server.address], SETTINGS) as channel:
        assert (await error_of(one_of(channel)(b"x", timeout=PATIENCE))).code() is code
        assert server.requests == 1


async def test_without_a_policy_nothing_that_a_server_answered_is_asked_again() -> None:
    async with peers(each_in_turn(unavailable)) as server, Channel([server.address]) as channel:
        assert (await error_of(one_of(channel)(b"x", timeout=PATIENCE))).code() is StatusCode.UNAVAILABLE
        assert server.requests == 1


async def test_once_anything_of_an_answer_is_here_nothing_is_asked_again() -> None:
    def begin(peer: Peer, stream: int) -> None:
        peer.engine.send_response(stream, HEADERS)
        peer.engine.send_trailers(stream, ((b"grpc-status", b"14"),))

    async with peers(each_in_turn(begin)) as server, Channel([server.address], SETTINGS) as channel:
        assert (await error_of(one_of(channel)(b"x", timeout=PATIENCE))).code() is StatusCode.UNAVAILABLE
        assert server.requests == 1


@pytest.mark.parametrize(("pushback", "attempts"), [(b"1", 4), (b"0", 4), (b"-1", 1), (b"soon", 1)])
async def test_a_server_may_say_when_to_come_back_or_never(pushback: bytes, attempts: int) -> None:
    def refuse(peer: Peer, stream: int) -> None:
        peer.refuse(stream, StatusCode.UNAVAILABLE, (PUSHBACK, pushback))

    async with peers(each_in_turn(refuse)) as server, Channel([server.address], SETTINGS) as channel:
        await error_of(one_of(channel)(b"x", timeout=PATIENCE))
        assert server.requests == attempts


async def test_a_call_near_its_deadline_is_asked_again_while_there_is_time_for_an_answer() -> None:
    unhurried = ChannelSettings(retries=RetryPolicy(first_backoff_seconds=1000.0, max_backoff_seconds=1000.0))
    async with peers(each_in_turn(unavailable, answer)) as server, Channel([server.address], unhurried) as channel:
        assert await one_of(channel)(b"x", timeout=1.0) == b"answer"


async def test_what_a_server_asks_for_beyond_the_deadline_is_not_waited_for() -> None:
    def refuse(peer: Peer, stream: int) -> None:
        peer.refuse(stream, StatusCode.UNAVAILABLE, (PUSHBACK, b"100000"))

    async with peers(each_in_turn(refuse)) as server, Channel([server.address], SETTINGS) as channel:
        assert await one_of(channel)(b"x", timeout=50.0).code() is StatusCode.UNAVAILABLE
        assert server.requests == 1


@pytest.mark.parametrize("left", [1000.0, 1.0, 0.01, 0.005])
def test_no_pause_takes_more_than_half_of_the_time_that_is_left(left: float) -> None:
    for attempt in (2, 3, 4):
        pause = RetryBudget(RetryPolicy()).pause_before(attempt, StatusCode.UNAVAILABLE, None, left)
        assert pause is not None
        assert 0.0 < pause <= left / 2


def test_nothing_is_asked_again_once_the_deadline_has_passed() -> None:
    assert RetryBudget(RetryPolicy()).pause_before(2, StatusCode.UNAVAILABLE, None, 0.0) is None


async def test_a_call_that_waits_to_be_asked_again_can_be_cancelled() -> None:
    def later(peer: Peer, stream: int) -> None:
        peer.refuse(stream, StatusCode.UNAVAILABLE, (PUSHBACK, b"100000"))

    async with peers(each_in_turn(later)) as server, Channel([server.address], SETTINGS) as channel:
        call = one_of(channel)(b"x")
        async with asyncio.timeout(PATIENCE):
            while not server.requests:  # noqa: ASYNC110 - as in other tests of peers
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert not call.done()
        call.cancel()
        assert await call.code() is StatusCode.CANCELLED


async def test_a_failing_server_is_asked_again_as_long_as_the_budget_lasts() -> None:
    policy = RetryPolicy(most_tokens=20, first_backoff_seconds=0.001, max_backoff_seconds=0.001)
    settings = ChannelSettings(retries=policy)
    async with peers(each_in_turn(unavailable)) as server, Channel([server.address], settings) as channel:
        for _ in range(10):
            await one_of(channel)(b"x", timeout=PATIENCE).code()
        # Ten failures use up half of the tokens; after that, each call is sent only once.
        assert server.requests == 10 + 7
        before = server.requests
        await one_of(channel)(b"x", timeout=PATIENCE).code()
        assert server.requests == before + 1


def test_answers_fill_the_budget_up_again() -> None:
    budget = RetryBudget(RetryPolicy(most_tokens=4))
    assert budget.pause_before(2, StatusCode.UNAVAILABLE, None) is not None
    assert budget.pause_before(2, StatusCode.UNAVAILABLE, None) is None
    for _ in range(15):
        budget.returned()
    assert budget.pause_before(2, StatusCode.UNAVAILABLE, None) is not None


async def test_the_whole_of_a_stream_of_requests_is_sent_again() -> None:
    seen: list[int] = []

    def act(peer: Peer, event: Event) -> None:
        stream = complete(event)
        if stream is not None:
            seen.append(peer.received - sum(seen))
            (answer if len(seen) == 2 else unavailable)(peer, stream)

    async with peers(act) as server, Channel([server.address], SETTINGS) as channel:
        assert await channel.stream_unary(SUM)(iter([b"x" * 10, b"y" * 20]), timeout=PATIENCE) == b"answer"
        assert seen == [40, 40]


async def test_requests_that_are_too_large_to_be_kept_are_asked_once() -> None:
    settings = ChannelSettings(retries=RetryPolicy(most_kept_bytes=1000))
    async with peers(each_in_turn(unavailable)) as server, Channel([server.address], settings) as channel:
        assert await one_of(channel)(b"x" * 2000, timeout=PATIENCE).code() is StatusCode.UNAVAILABLE
        assert await channel.stream_unary(SUM)(iter([b"x" * 600] * 2)).code() is StatusCode.UNAVAILABLE
        assert server.requests == 2
        assert await channel.unary_stream(MANY)(b"x", timeout=PATIENCE).code() is StatusCode.UNAVAILABLE
        assert server.requests == 6


async def test_a_server_that_is_away_is_told_at_once_to_those_who_do_not_wait() -> None:
    port = free_port()
    async with Channel([f"127.0.0.1:{port}"], SETTINGS) as channel:
        outcomes = await asyncio.gather(
            *(one_of(channel)(b"x", timeout=PATIENCE) for _ in range(5)), return_exceptions=True
        )
        assert codes_of(outcomes) == {StatusCode.UNAVAILABLE}
        patient = one_of(channel)(b"x", timeout=PATIENCE, wait_for_ready=True)
        async with peers(each_in_turn(answer), port=port):
            assert await patient == b"answer"
