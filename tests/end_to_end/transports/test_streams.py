"""Timing of streams: turns, backpressure, cancellation and deadlines, on every transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.builders import PATIENCE, channel_to
from tests.end_to_end.processes import Service, transports
from tests.end_to_end.transports.callers import guarded, path_of
from tests.end_to_end.transports.orders import Echo, Order
from tests.end_to_end.transports.running import running

MANY = 300
LARGE = 100_000
SOON = 1.0
"""Seconds until a deadline that passes; on an established connection, a call has begun long before."""
A_WHILE = 0.5
"""Seconds in which an unrestricted sender would get far."""


class Calls:
    """Methods of the echo service on one connection."""

    def __init__(self, channel: grpc.aio.Channel, name: str) -> None:
        self._channel = channel
        self.name = name

    def unary(self, method: str, order: Order, **options: Any) -> Any:
        return self._channel.unary_unary(path_of(method), Order.to_wire, Echo.from_wire)(order, **self._with(options))

    def server_stream(self, method: str, order: Order, **options: Any) -> Any:
        return self._channel.unary_stream(path_of(method), Order.to_wire, Echo.from_wire)(order, **self._with(options))

    def client_stream(self, method: str, **options: Any) -> Any:
        return self._channel.stream_unary(path_of(method), Order.to_wire, Echo.from_wire)(**self._with(options))

    def both(self, method: str, **options: Any) -> Any:
        return self._channel.stream_stream(path_of(method), Order.to_wire, Echo.from_wire)(**self._with(options))

    async def noted(self, what: str) -> None:
        """Wait until the event is in the servicer's notebook."""
        await self.unary("Noted", Order(name=f"{self.name} {what}"), timeout=PATIENCE)

    async def note(self, what: str) -> None:
        """Write the event into the servicer's notebook."""
        await self.unary("Unary", Order(notes=f"{self.name} {what}"))

    async def happens(self, what: str) -> bool:
        """Return whether the event gets into the notebook within a while."""
        try:
            await self.unary("Noted", Order(name=f"{self.name} {what}"), timeout=A_WHILE)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # noqa: PT017 - either is an answer
            return False
        return True

    def _with(self, options: dict[str, Any]) -> dict[str, Any]:
        # This timeout is longer than any test waits: a call that hangs must not be ended by its deadline.
        return {"timeout": 10 * PATIENCE} | options


@pytest.fixture
async def calls(host: Service, request: pytest.FixtureRequest) -> AsyncIterator[Calls]:
    async with channel_to(host.address) as channel:
        await asyncio.wait_for(channel.channel_ready(), PATIENCE)
        yield Calls(channel, request.node.name)


async def is_cancelled_with(call: Any, calls: Calls) -> None:
    """Cancel the call once its servicer has started, and wait until the servicer is cancelled too."""
    await calls.noted("started")
    call.cancel()
    await calls.noted("cancelled")


async def is_cancelled_at_the_deadline_of(call: Any, calls: Calls) -> None:
    assert await code_of(call) is grpc.StatusCode.DEADLINE_EXCEEDED
    await calls.noted("cancelled")


async def code_of(call: Any) -> grpc.StatusCode:
    found: grpc.StatusCode = await asyncio.wait_for(call.code(), PATIENCE)
    return found


# Turns


@pytest.mark.parametrize("method", ["Both", "ReadAndWritten"])
async def test_each_side_waits_for_the_other(calls: Calls, method: str) -> None:
    call = calls.both(method)
    for number in range(50):
        await call.write(Order(text=str(number)))
        assert (await call.read()).text == str(number)
    await call.done_writing()

    assert await call.read() is grpc.aio.EOF
    assert await code_of(call) is grpc.StatusCode.OK


@pytest.mark.parametrize("method", ["ServerStream", "WrittenServerStream"])
async def test_initial_metadata_arrive_before_there_is_a_message(calls: Calls, method: str) -> None:
    call = calls.server_stream(method, Order(text="a", initial=(("key", "value"),), wait=f"{calls.name} go"))

    assert ("key", "value") in tuple(await asyncio.wait_for(call.initial_metadata(), PATIENCE))
    await calls.note("go")
    assert (await call.read()).text == "a"
    assert await call.read() is grpc.aio.EOF


async def test_a_servicer_may_answer_before_all_has_come(calls: Calls) -> None:
    call = calls.both("Both")
    await call.write(Order(abort=("ABORTED", "enough")))

    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
    assert await code_of(call) is grpc.StatusCode.ABORTED
    assert await call.details() == "enough"


async def test_one_connection_carries_many_calls_at_once(calls: Calls) -> None:
    waiting = [calls.unary("Noted", Order(name=f"{calls.name} go", text=str(number))) for number in range(200)]
    await calls.note("go")

    assert [(await call).text for call in waiting] == [str(number) for number in range(200)]


# Backpressure


@pytest.mark.parametrize("method", ["ServerStream", "WrittenServerStream"])
async def test_a_slow_reader_holds_the_servicer_back(calls: Calls, method: str) -> None:
    stream = calls.server_stream(method, Order(name=calls.name, times=MANY, size=LARGE))
    await stream.read()

    assert not await calls.happens(f"sent {MANY}")
    # Other calls on the connection are not held up.
    assert (await calls.unary("Unary", Order(text="meanwhile"))).text == "meanwhile"

    for _ in range(MANY - 1):
        assert len((await stream.read()).ballast) == LARGE
    assert await stream.read() is grpc.aio.EOF
    assert await code_of(stream) is grpc.StatusCode.OK


@pytest.mark.parametrize("method", ["Both", "ReadAndWritten"])
async def test_a_slow_servicer_holds_the_caller_back(calls: Calls, method: str) -> None:
    call = calls.both(method)
    await call.write(Order(name=calls.name, wait=f"{calls.name} go"))
    await calls.noted("started")

    async def write() -> None:
        for number in range(MANY):
            await call.write(Order(text=str(number), ballast="." * LARGE))
        await call.done_writing()

    writing = asyncio.create_task(write())
    await asyncio.wait({writing}, timeout=A_WHILE)
    assert not writing.done()
    # Other calls on the connection are not held up.
    assert (await calls.unary("Unary", Order(text="meanwhile"))).text == "meanwhile"

    await calls.note("go")
    for text in ("", *map(str, range(MANY))):
        assert (await call.read()).text == text
    await writing
    assert await call.read() is grpc.aio.EOF
    assert await code_of(call) is grpc.StatusCode.OK


async def test_large_messages_stream_both_ways_at_once(calls: Calls) -> None:
    call = calls.both("Both")

    async def write() -> None:
        for number in range(MANY):
            await call.write(Order(text=str(number), ballast="." * LARGE, size=LARGE))
        await call.done_writing()

    writing = asyncio.create_task(write())
    for number in range(MANY):
        echo = await call.read()
        assert (echo.text, len(echo.ballast)) == (str(number), LARGE)
    await writing
    assert await call.read() is grpc.aio.EOF


# Callers who leave


@pytest.mark.parametrize("method", ["Unary", guarded("Unary")])
async def test_a_servicer_sees_that_a_unary_call_was_cancelled(calls: Calls, method: str) -> None:
    call = calls.unary(method, Order(name=calls.name, wait="never"))
    await is_cancelled_with(call, calls)


async def test_a_servicer_sees_that_a_unary_call_was_cancelled_after_a_while(calls: Calls) -> None:
    call = calls.unary("Unary", Order(name=calls.name, wait="never"))
    assert not await calls.happens("over")
    call.cancel()

    await calls.noted("cancelled")


@pytest.mark.parametrize("method", ["ServerStream", "WrittenServerStream"])
async def test_a_servicer_sees_that_a_stream_of_responses_was_cancelled(calls: Calls, method: str) -> None:
    call = calls.server_stream(method, Order(name=calls.name, wait="never"))
    await is_cancelled_with(call, calls)


@pytest.mark.parametrize("method", ["ClientStream", "ReadClientStream"])
async def test_a_servicer_sees_that_a_whole_stream_of_requests_was_cancelled(calls: Calls, method: str) -> None:
    call = calls.client_stream(method)
    await call.write(Order(name=calls.name, wait="never"))
    await call.done_writing()
    await is_cancelled_with(call, calls)


@pytest.mark.parametrize("method", ["Both", "ReadAndWritten"])
async def test_a_servicer_sees_that_both_sides_were_cancelled(calls: Calls, method: str) -> None:
    call = calls.both(method)
    await call.write(Order(name=calls.name, wait="never"))
    await is_cancelled_with(call, calls)


@pytest.mark.parametrize("method", ["ClientStream", "ReadClientStream"])
async def test_a_servicer_does_not_outlast_a_caller_who_leaves_in_the_middle_of_a_request(
    calls: Calls, method: str
) -> None:
    call = calls.client_stream(method)
    await call.write(Order(name=calls.name))
    await calls.noted("started")
    call.cancel()

    # For some of these calls, grpcio reports the end of the request; others it cancels.
    await calls.noted("over")


@pytest.mark.parametrize("method", ["Both", "ReadAndWritten"])
async def test_a_servicer_that_reads_on_does_not_outlast_its_caller(calls: Calls, method: str) -> None:
    call = calls.both(method)
    await call.write(Order(name=calls.name))
    assert (await call.read()).text == ""
    call.cancel()

    # For some of these calls, grpcio reports the end of the request; others it cancels.
    await calls.noted("over")


async def test_a_servicer_that_writes_on_does_not_outlast_its_caller(calls: Calls) -> None:
    call = calls.server_stream("WrittenServerStream", Order(name=calls.name, times=MANY, size=LARGE))
    await call.read()
    assert not await calls.happens(f"sent {MANY}")
    call.cancel()

    await calls.noted("over")


async def test_a_connection_that_is_lost_cancels_its_calls(calls: Calls, host: Service) -> None:
    async with channel_to(host.address) as channel:
        lost = Calls(channel, calls.name)
        waiting = asyncio.ensure_future(lost.unary("Unary", Order(name=calls.name, wait="never")))
        await calls.noted("started")
    await asyncio.wait({waiting})

    await calls.noted("cancelled")


@pytest.mark.parametrize("method", ["Unary", guarded("Unary")])
async def test_a_servicer_is_cancelled_at_the_deadline(calls: Calls, method: str) -> None:
    call = calls.unary(method, Order(name=calls.name, wait="never"), timeout=SOON)
    await is_cancelled_at_the_deadline_of(call, calls)


@pytest.mark.parametrize("method", ["ServerStream", "WrittenServerStream"])
async def test_a_servicer_that_streams_is_cancelled_at_the_deadline(calls: Calls, method: str) -> None:
    call = calls.server_stream(method, Order(name=calls.name, wait="never"), timeout=SOON)
    await is_cancelled_at_the_deadline_of(call, calls)


@pytest.mark.parametrize("method", ["ClientStream", "ReadClientStream", "Both", "ReadAndWritten"])
async def test_a_servicer_that_reads_a_stream_is_cancelled_at_the_deadline(calls: Calls, method: str) -> None:
    start = calls.client_stream if "Client" in method else calls.both
    call = start(method, timeout=SOON)
    await call.write(Order(name=calls.name, wait="never"))
    await call.done_writing()
    await is_cancelled_at_the_deadline_of(call, calls)


@pytest.mark.parametrize("transport", transports())
async def test_callers_who_leave_whenever_they_like_leave_nothing_in_the_log(tmp_path: Path, transport: str) -> None:
    # The log must have no calls of other tests, and is complete once the service has ended.
    with running(tmp_path, transport) as service:
        async with channel_to(service.address) as channel:
            for round_ in range(20):
                await leave_at_every_moment(Calls(channel, str(round_)))
        assert service.stop() == 0

    # grpcio itself logs some answers that it can no longer send.
    lines = [line for line in service.log.read_text().splitlines() if "raised in core" not in line]
    assert [json.loads(line)["event"] for line in lines] == ["listening", "ready", "draining", "stopped"]


async def leave_at_every_moment(calls: Calls) -> None:
    for method in ("Unary", guarded("Unary")):
        calls.unary(method, Order()).cancel()
    order = Order(name=f"{calls.name} sent", times=MANY, size=LARGE)
    for method in ("ServerStream", "WrittenServerStream"):
        calls.server_stream(method, order).cancel()
    for method in ("ClientStream", "ReadClientStream", "Both", "ReadAndWritten"):
        start = calls.client_stream if "Client" in method else calls.both
        nothing_sent, sent = start(method), start(method)
        # The request is sent, but its messages are not.
        await nothing_sent.wait_for_connection()
        nothing_sent.cancel()
        await sent.write(order)
        sent.cancel()
    for method in ("Both", "ReadAndWritten"):
        call = calls.both(method)
        await call.write(Order(name=f"{calls.name} {method}", times=MANY, size=LARGE))
        await call.read()
        call.cancel()
        await calls.noted(f"{method} over")
    stream = calls.server_stream("WrittenServerStream", Order(name=f"{calls.name} stream", times=MANY, size=LARGE))
    await stream.read()
    stream.cancel()
    await calls.noted("stream over")
