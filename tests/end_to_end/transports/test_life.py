"""Start, drain and end of a process, on every transport."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.builders import NOT_SERVING, PATIENCE, SERVING, channel_to
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, transports
from tests.end_to_end.transports.callers import SyncCaller, guarded
from tests.end_to_end.transports.orders import Echo, Order
from tests.end_to_end.transports.running import PROGRAM, held_port, running
from tests.end_to_end.transports.wire import framed, wire_to

LONG = "3600"
REFUSED = {grpc.StatusCode.UNAVAILABLE}


@pytest.fixture(params=transports())
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Calls:
    """Calls on one connection."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._health: Any = health_pb2_grpc.HealthStub(channel)

    def unary(self, order: Order, method: str = guarded("Unary")) -> Any:
        return self._channel.unary_unary(method, Order.to_wire, Echo.from_wire)(order, timeout=PATIENCE)

    async def noted(self, what: str) -> None:
        await self.unary(Order(name=what), "/transports.Echo/Noted")

    async def stream(self) -> Any:
        """Return a stream that has begun; what is written to it reaches the servicer while other calls are refused."""
        stream = self._channel.stream_stream("/transports.Echo/Both", Order.to_wire, Echo.from_wire)(timeout=PATIENCE)
        await stream.write(Order())
        await stream.read()
        return stream

    def watch(self) -> Any:
        return self._health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)


async def ended(service: Service) -> int:
    return await asyncio.to_thread(service.process.wait, PATIENCE)


async def refusal(address: str) -> grpc.StatusCode:
    """Make calls, each on its own connection, until one is refused."""
    while True:
        async with channel_to(address) as channel:
            try:
                await Calls(channel).unary(Order())
            except grpc.aio.AioRpcError as error:
                return error.code()


# The start


def test_the_line_ready_tells_the_address(tmp_path: Path, transport: str) -> None:
    with held_port() as port, running(tmp_path, transport, port=port) as service:
        assert service.address == f"127.0.0.1:{port}"
        assert [event["event"] for event in service.events()] == ["listening", "ready"]


def test_port_0_takes_a_free_one_and_tells_it(tmp_path: Path, transport: str) -> None:
    with running(tmp_path, transport) as service:
        assert not service.address.endswith(":0")
        assert SyncCaller().call(service.address, "Unary", Order(text="a")).code == "OK"


def test_the_limit_of_messages_is_a_setting(tmp_path: Path, transport: str) -> None:
    with running(tmp_path, transport, "--max-message-bytes", str(16 << 20)) as service:
        for method in ("Unary", "ClientStream", guarded("Unary")):
            assert SyncCaller().call(service.address, method, Order(ballast="." * (15 << 20))).code == "OK"
            refused = SyncCaller().call(service.address, method, Order(ballast="." * (16 << 20)))
            assert refused.code == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("holder", ["another program", "a service of ours"])
def test_a_port_that_is_taken_ends_the_start_with_one_plain_line(tmp_path: Path, transport: str, holder: str) -> None:
    with contextlib.ExitStack() as held:
        if holder == "another program":
            port = held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        else:
            port = int(held.enter_context(running(tmp_path, transport)).address.rpartition(":")[2])
        command = [sys.executable, "-m", PROGRAM, "--model-dir", str(tmp_path), "--port", str(port)]
        run = subprocess.run(
            [*command, "--transport", transport],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            cwd=ROOT,
        )

    assert run.returncode == 1
    # grpcio prints a line of its own about the failure.
    ours = [line for line in run.stderr.splitlines() if "add_port.cc" not in line]
    why = "it is in use; end the process that holds it, or choose another port"
    assert ours == [f"transports: cannot listen on 127.0.0.1:{port}: {why}"]


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_ends_an_idle_process_with_zero(tmp_path: Path, transport: str, number: int) -> None:
    with running(tmp_path, transport, "--drain-grace-seconds", LONG) as service:
        service.process.send_signal(number)

        assert await ended(service) == 0
        assert [event["event"] for event in service.events()] == ["listening", "ready", "draining", "stopped"]


async def test_a_call_in_flight_ends_well_and_later_ones_are_unavailable(tmp_path: Path, transport: str) -> None:
    with running(tmp_path, transport, "--drain-grace-seconds", LONG) as service:
        async with channel_to(service.address) as channel, channel_to(service.address) as other:
            calls = Calls(channel)
            in_flight = calls.unary(Order(name="call", text="in flight", wait="go"))
            watch = Calls(other).watch()
            assert (await watch.read()).status == SERVING
            await calls.noted("call started")
            stream = await calls.stream()

            service.process.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == NOT_SERVING
            # Calls are served as before until the drain has begun.
            assert await refusal(service.address) in REFUSED
            assert await refusal(service.address) is grpc.StatusCode.UNAVAILABLE
            assert not in_flight.done()

            await stream.write(Order(text="streamed", notes="go"))
            assert (await in_flight).text == "in flight"
            assert (await stream.read()).text == "streamed"
            assert service.process.poll() is None, "a stream is in flight"
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK
            assert await ended(service) == 0


async def test_callers_go_on_elsewhere_while_a_call_is_still_in_flight(tmp_path: Path, transport: str) -> None:
    with (
        running(tmp_path / "leaving", transport, "--drain-grace-seconds", LONG) as leaving,
        running(tmp_path / "staying", transport) as staying,
    ):
        async with channel_to(f"ipv4:{leaving.address},{staying.address}") as channel:
            calls = Calls(channel)
            stream = await calls.stream()
            first = await answered_by(calls, transport)

            leaving.process.send_signal(signal.SIGTERM)
            while await answered_by(calls, transport) in (first, None):
                """Calls are served as before, or refused, until the connection is given up."""
            await stream.write(Order(text="streamed"))
            assert (await stream.read()).text == "streamed"
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            assert await ended(leaving) == 0


async def answered_by(calls: Calls, transport: str) -> str | None:
    """Make a call; return a mark of the process that answers it, or ``None`` if it is refused."""
    call = calls.unary(Order())
    try:
        await call
    except grpc.aio.AioRpcError as error:
        assert error.code() in REFUSED  # noqa: PT017 - either is an answer
        return None
    # The mark is the first half of the request id.
    return str((await call.trailing_metadata())["x-request-id"])[:16]


async def test_an_answer_that_is_on_its_way_arrives_whole_however_slowly(tmp_path: Path, transport: str) -> None:
    with running(tmp_path, transport, "--drain-grace-seconds", LONG) as service, wire_to(service.address) as wire:
        # The servicer has returned its answer, and the caller does not read it yet.
        call = wire.start(guarded("Unary"), framed(Order(size=500_000)))
        wire.filled(call)
        service.process.send_signal(signal.SIGTERM)
        assert await refusal(service.address) in REFUSED

        response = wire.response(call)
        assert response.status == "0"
        assert len(response.echo().ballast) == 500_000
        assert await ended(service) == 0


@pytest.mark.parametrize("connections", ["one", "many"])
async def test_callers_who_never_cease_are_served_until_they_are_refused(
    tmp_path: Path, transport: str, connections: str
) -> None:
    with running(tmp_path, transport, "--drain-grace-seconds", LONG) as service:
        async with channel_to(service.address) as channel:

            async def refused() -> grpc.StatusCode:
                if connections == "many":
                    return await refusal(service.address)
                try:
                    while True:
                        await Calls(channel).unary(Order())
                except grpc.aio.AioRpcError as error:
                    return error.code()

            callers = asyncio.gather(*(refused() for _ in range(10)))
            service.process.send_signal(signal.SIGTERM)

            assert set(await callers) <= REFUSED
            assert await ended(service) == 0


async def test_load_balancers_see_not_serving_while_calls_are_still_taken(tmp_path: Path, transport: str) -> None:
    with running(tmp_path, transport, "--drain-delay-seconds", LONG) as service:
        async with channel_to(service.address) as channel:
            calls = Calls(channel)
            watch = calls.watch()
            assert (await watch.read()).status == SERVING
            service.process.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == NOT_SERVING
            assert (await calls.unary(Order(text="a"))).text == "a"

            service.process.send_signal(signal.SIGTERM)
            assert await ended(service) == 0


@pytest.mark.parametrize("grace", ["0", LONG])
async def test_callers_that_go_on_while_a_service_ends_are_never_told_that_they_cancelled(
    tmp_path: Path, transport: str, grace: str
) -> None:
    told: set[grpc.StatusCode] = set()

    async def go_on(calls: Calls, text: str) -> None:
        while not told or grpc.StatusCode.CANCELLED not in told:
            try:
                await calls.unary(Order(text=text))
            except grpc.aio.AioRpcError as error:
                told.add(error.code())
                if "connect" in (error.details() or "").lower():
                    return

    with running(tmp_path, transport, "--drain-grace-seconds", grace) as service:
        async with contextlib.AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(channel_to(service.address)) for _ in range(4)]
            callers = [
                asyncio.create_task(go_on(Calls(channel), "x" * size))
                for channel in channels
                for size in (1, 100_000) * 6
            ]
            await Calls(channels[0]).unary(Order())
            service.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(*callers), PATIENCE)
            assert await ended(service) == 0
    assert told == REFUSED


async def was_cut_off(in_flight: Awaitable[Echo]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await in_flight
    assert caught.value.code() in REFUSED


async def test_a_second_signal_cuts_the_drain_short(tmp_path: Path, transport: str) -> None:
    with running(tmp_path, transport, "--drain-grace-seconds", LONG) as service:
        async with channel_to(service.address) as channel, channel_to(service.address) as other:
            calls = Calls(channel)
            in_flight = asyncio.ensure_future(calls.unary(Order(name="call", wait="never")))
            watch = Calls(other).watch()
            assert (await watch.read()).status == SERVING
            await calls.noted("call started")
            service.process.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == NOT_SERVING
            assert service.process.poll() is None
            service.process.send_signal(signal.SIGTERM)

            assert await ended(service) == 0
            await was_cut_off(in_flight)


async def test_calls_that_outlast_the_grace_are_ended(tmp_path: Path, transport: str) -> None:
    with running(tmp_path, transport, "--drain-grace-seconds", "0.2") as service:
        async with channel_to(service.address) as channel:
            calls = Calls(channel)
            in_flight = asyncio.ensure_future(calls.unary(Order(name="call", wait="never")))
            await calls.noted("call started")
            service.process.send_signal(signal.SIGTERM)

            assert await ended(service) == 0
            await was_cut_off(in_flight)


async def test_watchers_of_the_health_check_do_not_hold_up_the_end(tmp_path: Path, transport: str) -> None:
    with running(tmp_path, transport, "--drain-grace-seconds", LONG) as service:
        async with channel_to(service.address) as channel:
            watch = Calls(channel).watch()
            assert (await watch.read()).status == SERVING
            service.process.send_signal(signal.SIGTERM)

            assert (await watch.read()).status == NOT_SERVING
            assert await watch.read() is grpc.aio.EOF
            assert await watch.code() is grpc.StatusCode.OK
            assert await ended(service) == 0


def test_killed_it_leaves_nothing_behind(tmp_path: Path, transport: str) -> None:
    with running(tmp_path, transport) as service:
        service.process.kill()
        assert service.process.wait(PATIENCE) == -signal.SIGKILL


def test_killed_it_leaves_its_port_to_the_next(tmp_path: Path, transport: str) -> None:
    with held_port() as port:
        with running(tmp_path / "first", transport, port=port) as service:
            service.process.kill()
        with running(tmp_path / "second", transport, port=port) as again:
            assert SyncCaller().call(again.address, "Unary", Order(text="a")).code == "OK"
