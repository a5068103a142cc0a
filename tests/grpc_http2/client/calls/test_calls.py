"""The four kinds of calls, against grpcio's server and ours."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import Compression, StatusCode
from grpc.aio import EOF, AioRpcError, Metadata

from grpc_http2.client.calls.call import Call
from grpc_http2.client.channel import Channel
from grpc_http2.client.settings import ChannelSettings
from tests.builders import PATIENCE, refusing_address
from tests.grpc_http2.client.peers import BOTH, MANY, ONE, SUM, Service, error_of, grpcio_server, one_of, own_server

SIZES = [0, 1, 100, 16_000, 70_000, 1 << 20, 4 << 20]


@pytest.fixture
async def service() -> Service:
    return Service()


@pytest.fixture(params=[grpcio_server, own_server], ids=["grpcio", "own"])
async def channel(service: Service, request: pytest.FixtureRequest) -> AsyncIterator[Channel]:
    async with request.param(service) as address, Channel([address]) as channel:
        yield channel


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("compression", [None, Compression.Gzip])
async def test_a_message_of_any_size_comes_back(channel: Channel, size: int, compression: Compression | None) -> None:
    message = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    assert await one_of(channel)(message, compression=compression) == message


async def test_one_request_may_have_many_answers(channel: Channel) -> None:
    call = channel.unary_stream(MANY)(b"5x3")
    assert [answer async for answer in call] == [b"000", b"001", b"002", b"003", b"004"]
    assert await call.code() is StatusCode.OK
    assert await call.read() is EOF


@pytest.mark.parametrize("number", [0, 1, 3, 50])
async def test_many_requests_may_have_one_answer(channel: Channel, number: int) -> None:
    async def requests() -> AsyncIterator[bytes]:
        for _ in range(number):
            yield b"x" * 20_000

    ask = channel.stream_unary(SUM)
    wanted = str(number * 20_000).encode()
    assert await ask(requests()) == wanted
    assert await ask(iter([b"x" * 20_000] * number)) == wanted
    call = ask()
    for _ in range(number):
        await call.write(b"x" * 20_000)
    await call.done_writing()
    assert await call == wanted


async def test_both_sides_may_speak_in_turn(channel: Channel) -> None:
    call = channel.stream_stream(BOTH)()
    for number in range(20):
        await call.write(b"%d" % number)
        assert await call.read() == b"%d" % number
    await call.done_writing()
    assert await call.read() is EOF
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"more")
    echoed = channel.stream_stream(BOTH)(iter([b"a", b"", b"c" * 100_000]))
    assert [answer async for answer in echoed] == [b"a", b"", b"c" * 100_000]


async def test_metadata_go_both_ways(channel: Channel, service: Service) -> None:
    own = (("plain", "text, with commas"), ("raw-bin", b"\x00\xff,"), ("twice", "1"), ("twice", "2"))
    for metadata in (own, Metadata(*own)):
        call = one_of(channel)(b"x", metadata=metadata)
        assert (await call.initial_metadata())["greeting"] == "hello"
        assert await call == b"x"
        told = service.metadata.pop()
        assert (told["plain"], told["raw-bin"]) == ("text, with commas", b"\x00\xff,")


async def test_a_channel_adds_its_metadata_to_every_call(service: Service) -> None:
    async with grpcio_server(service) as address, Channel([address], metadata=(("who", "me"),)) as channel:
        await one_of(channel)(b"x", metadata=(("more", "of it"),))
        await one_of(channel)(b"x")
    assert [(told["who"], told.get("more")) for told in service.metadata] == [("me", "of it"), ("me", None)]


@pytest.mark.parametrize("metadata", [(("UPPER case", "x"),), (("key", "line\nbreak"),), (("grpc-status", "0"),)])
async def test_metadata_that_would_break_the_request_are_refused(channel: Channel, metadata: Any) -> None:
    with pytest.raises(ValueError, match=r"metadata|printable"):
        one_of(channel)(b"x", metadata=metadata)


async def test_metadata_that_are_too_large_fail_their_call_alone(channel: Channel) -> None:
    assert (await error_of(one_of(channel)(b"x", metadata=(("key", "v" * 70_000),)))).code() is (
        StatusCode.RESOURCE_EXHAUSTED
    )
    assert await one_of(channel)(b"x") == b"x"


async def test_a_status_comes_with_its_words_and_metadata(channel: Channel) -> None:
    call = one_of(channel)(b"refuse")
    error = await error_of(call)
    assert (error.code(), error.details()) == (StatusCode.NOT_FOUND, "no such thing: é %")
    trailing: Any = error.trailing_metadata()
    assert (trailing["why"], trailing["raw-bin"]) == ("because", b"\0\xff")
    assert (await call.code(), await call.details()) == (StatusCode.NOT_FOUND, "no such thing: é %")
    assert (await call.trailing_metadata())["why"] == "because"
    assert call.done()
    assert not call.cancelled()


async def test_a_method_that_is_not_there_is_unimplemented(channel: Channel) -> None:
    assert (await error_of(channel.unary_unary(f"{ONE}s")(b"x"))).code() is StatusCode.UNIMPLEMENTED


async def test_a_failure_in_the_middle_of_a_stream_is_told_to_reader_and_writer(channel: Channel) -> None:
    call = channel.stream_stream(BOTH)()
    await call.write(b"a")
    assert await call.read() == b"a"
    await call.write(b"refuse")
    with pytest.raises(AioRpcError, match="too much"):
        await call.read()
    with pytest.raises(AioRpcError, match="too much"):
        await call.write(b"b")


async def test_a_deadline_goes_with_the_call_and_ends_it(channel: Channel, service: Service) -> None:
    await one_of(channel)(b"x", timeout=500)
    assert 500 - PATIENCE < service.seconds[0] <= 505
    call = one_of(channel)(b"wait", timeout=0.2)
    error = await error_of(call)
    assert error.code() is StatusCode.DEADLINE_EXCEEDED
    assert call.time_remaining() == 0
    await asyncio.wait_for(service.ended.wait(), PATIENCE)


async def test_a_deadline_that_has_passed_asks_nobody(channel: Channel, service: Service) -> None:
    for timeout in (0, -1.0):
        assert (await error_of(one_of(channel)(b"x", timeout=timeout))).code() is StatusCode.DEADLINE_EXCEEDED
    assert service.metadata == []


async def test_a_deadline_passes_while_there_is_no_connection() -> None:
    async with Channel([refusing_address()]) as channel:
        error = await error_of(one_of(channel)(b"x", timeout=0.3, wait_for_ready=True))
        assert error.code() is StatusCode.DEADLINE_EXCEEDED


async def test_who_waits_and_is_cancelled_cancels_the_call(channel: Channel, service: Service) -> None:
    call = one_of(channel)(b"wait")
    waiting = asyncio.ensure_future(call)
    await asyncio.wait_for(service.begun.wait(), PATIENCE)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert call.cancelled()
    assert await call.code() is StatusCode.CANCELLED
    await asyncio.wait_for(service.ended.wait(), PATIENCE)


async def test_the_answer_of_a_call_that_has_ended_is_there_without_a_wait(channel: Channel) -> None:
    call = one_of(channel)(b"x")
    with pytest.raises(asyncio.InvalidStateError):
        call.result()
    told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    call.add_done_callback(lambda ended: told.set_result(ended.result()))
    assert await told == b"x"
    cancelled = one_of(channel)(b"x")
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        cancelled.result()


async def test_a_callback_that_fails_costs_the_other_calls_of_the_connection_nothing(channel: Channel) -> None:
    failed: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["message"]))

    def fail(_: Call) -> None:
        raise ZeroDivisionError

    calls = [one_of(channel)(b"x") for _ in range(3)]
    for call in calls:
        call.add_done_callback(fail)
    assert await asyncio.gather(*calls) == [b"x"] * 3
    assert failed == ["a callback of a call failed"] * 3


async def test_a_call_that_is_cancelled_wakes_whoever_waits_for_it(channel: Channel, service: Service) -> None:
    for method, request in ((one_of(channel), b"wait"), (channel.unary_stream(MANY), b"0x0")):
        call = method(request)
        await asyncio.wait_for(service.begun.wait(), PATIENCE)
        service.begun.clear()
        wait: Any = call.read() if hasattr(call, "read") else call
        waiting = asyncio.ensure_future(wait)
        told: list[Any] = []
        call.add_done_callback(told.append)
        assert call.cancel()
        assert not call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert told == [call]


async def test_a_caller_that_only_asks_for_the_status_may_leave(channel: Channel, service: Service) -> None:
    call = one_of(channel)(b"wait", timeout=PATIENCE)
    asking = asyncio.ensure_future(call.code())
    await asyncio.wait_for(service.begun.wait(), PATIENCE)
    asking.cancel()
    await asyncio.wait([asking])
    assert not call.done()
    call.cancel()


async def test_an_answer_that_is_too_large_fails_its_call_alone(service: Service) -> None:
    async with (
        grpcio_server(service) as address,
        Channel([address], ChannelSettings(max_message_bytes=1000)) as channel,
    ):
        for compression in (None, Compression.Gzip):
            error = await error_of(one_of(channel)(b"x" * 1001, compression=compression))
            assert error.code() is StatusCode.RESOURCE_EXHAUSTED
        assert await one_of(channel)(b"x" * 1000) == b"x" * 1000


async def test_an_answer_that_cannot_be_read_is_an_error_of_its_call(channel: Channel) -> None:
    def refuse(message: bytes) -> bytes:
        raise ValueError(message)

    error = await error_of(channel.unary_unary(ONE, response_deserializer=refuse)(b"x"))
    assert error.code() is StatusCode.INTERNAL


async def test_requests_that_cannot_be_made_cancel_their_call(channel: Channel) -> None:
    async def requests() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError("no more")

    call = channel.stream_unary(SUM)(requests())
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await call.code() is StatusCode.CANCELLED


async def test_what_a_server_sends_ahead_of_its_reader_is_bounded(channel: Channel, service: Service) -> None:
    call = channel.unary_stream(MANY)(b"2000x50000")
    assert len(await call.read()) == 50_000
    # Other calls give the loop enough turns for the stream to fill up.
    for _ in range(50):
        assert await one_of(channel)(b"x") == b"x"
    ahead = service.sent
    assert ahead < 200
    for number in range(1, 2000):
        assert int((await call.read())[-6:]) == number
    assert await call.read() is EOF


async def test_streams_that_are_left_unread_take_nothing_from_others(service: Service) -> None:
    settings = ChannelSettings(stream_window_bytes=1 << 16, connection_window_bytes=1 << 20)
    async with grpcio_server(service) as address, Channel([address], settings) as channel:
        for _ in range(100):
            call = channel.unary_stream(MANY)(b"4x30000")
            await call.read()
            # The remaining messages of the stream arrive during this call.
            await one_of(channel)(b"x")
            call.cancel()
        assert len(await one_of(channel)(b"x" * (4 << 20))) == 4 << 20


async def test_a_closed_channel_has_cancelled_its_calls_and_takes_no_more(service: Service) -> None:
    async with grpcio_server(service) as address:
        channel = Channel([address])
        call = one_of(channel)(b"wait")
        await asyncio.wait_for(service.begun.wait(), PATIENCE)
        await channel.close()
        assert await call.code() is StatusCode.CANCELLED
        with pytest.raises(grpc.aio.UsageError):
            one_of(channel)(b"x")
        await channel.close()


async def test_closing_with_grace_waits_for_calls(service: Service) -> None:
    async with grpcio_server(service) as address:
        channel = Channel([address])
        calls = [one_of(channel)(b"x" * 100_000) for _ in range(20)]
        await channel.close(grace=PATIENCE)
        assert [len(await call) for call in calls] == [100_000] * 20


@pytest.mark.slow
async def test_calls_leave_nothing_for_the_garbage_collector(channel: Channel) -> None:
    await one_of(channel)(b"x")
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for request in (b"x", b"refuse"):
            for _ in range(20):
                assert await one_of(channel)(request, timeout=PATIENCE).code()
        for _ in range(20):
            assert [answer async for answer in channel.unary_stream(MANY)(b"3x3")]
        gc.collect()
        assert [one for one in gc.garbage if isinstance(one, Call | AioRpcError)] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
