from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from intent_serving_client.remote import error_of_call
from serving.domain.errors import Unavailable
from serving.domain.prediction import Query
from serving.runtime.lifecycle import StopSignals, serve
from serving.runtime.workload import Workload
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.transport.hosts.listening import CannotListen
from tests.builders import (
    NOT_SERVING,
    PATIENCE,
    PREDICTOR,
    SERVING,
    channel_to,
    free_port,
    health_becomes,
    health_of,
    host_of,
    hosted,
    server_settings,
)
from tests.fakes.predictor import echo, fake_predictor

pytestmark = pytest.mark.usefixtures("each_transport")


@pytest.fixture(autouse=True)
def events() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


async def seen(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), PATIENCE)


async def ask(channel: grpc.aio.Channel, document: str = "x") -> str:
    stub: Any = pb_grpc.PredictorStub(channel)
    request = pb.PredictorPredictRequest(runId="a", document=document)
    answer = await stub.PredictorPredict(request, timeout=PATIENCE)
    return str(answer.label)


class Life:
    """A service in this process: the task of its ``serve``, and the means to signal and end it."""

    def __init__(self, port: int, task: asyncio.Task[None], closed: asyncio.Event) -> None:
        self.address = f"127.0.0.1:{port}"
        self.task = task
        self.closed = closed

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to this process; the service must still run to take the signal."""
        assert not self.task.done()
        os.kill(os.getpid(), number)

    async def end(self) -> None:
        await asyncio.wait_for(asyncio.shield(self.task), PATIENCE)
        assert self.closed.is_set()


async def _at_once() -> None:
    """Be ready without a wait."""


@asynccontextmanager
async def living(
    model_dir: Path,
    behaviour: Callable[[Query], Awaitable[str]] = echo,
    get_ready: Callable[[], Awaitable[None]] = _at_once,
    **settings: Any,
) -> AsyncIterator[tuple[Life, grpc.aio.Channel]]:
    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    port = free_port()
    wanted = server_settings(model_dir, port=port, **settings)
    host = host_of(wanted, [fake_predictor(behaviour)])
    task = asyncio.create_task(serve(host, wanted, Workload([], get_ready, close), StopSignals.of_process()))
    try:
        async with channel_to(f"127.0.0.1:{port}") as channel:
            # An answer means that the service listens, and so that it already handles signals.
            await health_of(channel)
            yield Life(port, task, closed), channel
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await host.stop(0)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)


# Listening


async def test_it_listens_on_a_free_port_and_tells_which(tmp_path: Path) -> None:
    async with hosted(tmp_path, fake_predictor(echo)) as address, channel_to(address) as channel:
        assert await ask(channel, "hello") == "hello"


@pytest.mark.parametrize("holder", ["another program", "a service of ours"])
async def test_a_port_that_is_taken_is_told(holder: str, tmp_path: Path) -> None:
    if holder == "another program":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1:{port}"):
                await host_of(server_settings(tmp_path, port=port), []).start()
    else:
        async with hosted(tmp_path, fake_predictor(echo)) as address:
            with pytest.raises(CannotListen, match=f"cannot listen on {address}"):
                await host_of(server_settings(tmp_path, port=int(address.rpartition(":")[2])), []).start()


async def test_an_address_of_another_machine_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotListen):
        await host_of(server_settings(tmp_path, host="192.0.2.1"), []).start()


async def test_reflection_lists_the_services(tmp_path: Path) -> None:
    async with hosted(tmp_path, fake_predictor(echo)) as address, channel_to(address) as channel:
        connection: Any = channel
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(connection)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=PREDICTOR),
        ]
        listed, described = [answer async for answer in stub.ServerReflectionInfo(iter(requests), timeout=PATIENCE)]
        assert {service.name for service in listed.list_services_response.service} == {
            PREDICTOR,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        assert any(b"runId" in file for file in described.file_descriptor_response.file_descriptor_proto)


async def test_a_method_that_is_not_there_is_unimplemented(tmp_path: Path) -> None:
    async with hosted(tmp_path) as address, channel_to(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(channel)
        assert caught.value.code() is StatusCode.UNIMPLEMENTED


async def test_one_connection_carries_many_calls_at_once(tmp_path: Path) -> None:
    together = asyncio.Barrier(200)

    async def behave(query: Query) -> str:
        await together.wait()
        return query.document

    async with hosted(tmp_path, fake_predictor(behave)) as address, channel_to(address) as channel:
        answers = await asyncio.gather(*(ask(channel, str(number)) for number in range(200)))
        assert answers == [str(number) for number in range(200)]


# Health


@pytest.mark.parametrize("name", ["", PREDICTOR])
async def test_health_is_not_serving_until_the_service_is_ready(name: str, tmp_path: Path) -> None:
    ready = asyncio.Event()

    async def get_ready() -> None:
        await ready.wait()

    async with living(tmp_path, get_ready=get_ready) as (life, channel):
        assert await health_of(channel, name) == NOT_SERVING
        ready.set()
        await health_becomes(channel, SERVING, name)
        assert await health_of(channel, name) == SERVING
        life.signal()
        await life.end()


async def test_the_health_of_an_unknown_service_is_not_found(tmp_path: Path) -> None:
    async with hosted(tmp_path, fake_predictor(echo)) as address, channel_to(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_of(channel, "no.such.Service")
        assert caught.value.code() is StatusCode.NOT_FOUND


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_ends_the_service(number: int, tmp_path: Path) -> None:
    async with living(tmp_path) as (life, channel):
        await health_becomes(channel, SERVING)
        assert await ask(channel) == "x"
        life.signal(number)
        await life.end()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(channel)
        assert caught.value.code() is StatusCode.UNAVAILABLE


async def refusal_on_a_connection_of_its_own(address: str) -> grpc.aio.AioRpcError | None:
    async with channel_to(address) as channel:
        try:
            await ask(channel)
        except grpc.aio.AioRpcError as error:
            return error
    return None


async def test_calls_in_flight_end_well_after_a_signal_and_later_ones_are_unavailable(tmp_path: Path) -> None:
    started, may_answer = asyncio.Event(), asyncio.Event()

    async def behave(query: Query) -> str:
        if query.document == "in flight":
            started.set()
            await may_answer.wait()
        return query.document

    async with living(tmp_path, behave, drain_grace_seconds=3600) as (life, channel):
        await health_becomes(channel, SERVING)
        in_flight = asyncio.create_task(ask(channel, "in flight"))
        await seen(started)
        life.signal()
        refusal: grpc.aio.AioRpcError | None = None
        while refusal is None:
            # Calls are served as before until the signal has arrived; every call is either served or refused.
            refusal = await refusal_on_a_connection_of_its_own(life.address)
        # gRPC itself answers CANCELLED to a call that arrives in this very moment; our clients read it as Unavailable.
        assert isinstance(error_of_call(refusal, "predictor"), Unavailable)
        later = await refusal_on_a_connection_of_its_own(life.address)
        assert later is not None
        assert later.code() is StatusCode.UNAVAILABLE
        assert not in_flight.done()
        assert not life.closed.is_set()
        may_answer.set()
        assert await in_flight == "in flight"
        await life.end()


@pytest.mark.parametrize("name", ["", PREDICTOR])
async def test_load_balancers_see_not_serving_while_calls_are_still_taken(name: str, tmp_path: Path) -> None:
    async with living(tmp_path, drain_delay_seconds=3600) as (life, channel):
        await health_becomes(channel, SERVING, name)
        life.signal()
        await health_becomes(channel, NOT_SERVING, name)
        assert await ask(channel) == "x"
        life.signal()
        await life.end()


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(_: Query) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    async with living(tmp_path, hang, drain_delay_seconds=0, drain_grace_seconds=3600) as (life, channel):
        await health_becomes(channel, SERVING)
        in_flight = asyncio.create_task(ask(channel))
        await seen(started)
        life.signal()
        await health_becomes_or_ends(channel)
        assert not life.task.done()
        life.signal(signal.SIGINT)
        await life.end()
        await seen(cancelled)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await in_flight
        assert caught.value.code() is StatusCode.UNAVAILABLE


async def health_becomes_or_ends(channel: grpc.aio.Channel) -> None:
    """Wait until the health check reports NOT_SERVING, or the server no longer accepts the check."""
    try:
        await health_becomes(channel, NOT_SERVING)
    except grpc.aio.AioRpcError as error:
        assert error.code() is StatusCode.UNAVAILABLE  # noqa: PT017


async def test_calls_that_outlast_the_grace_are_ended(tmp_path: Path) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(_: Query) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    async with living(tmp_path, hang, drain_grace_seconds=0.05) as (life, channel):
        in_flight = asyncio.create_task(ask(channel))
        await seen(started)
        life.signal()
        await life.end()
        await seen(cancelled)
        await asyncio.gather(in_flight, return_exceptions=True)


async def test_a_signal_while_it_gets_ready_ends_it(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def never_ready() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async with living(tmp_path, get_ready=never_ready) as (life, channel):
        assert await health_of(channel) == NOT_SERVING
        life.signal()
        await life.end()
        assert left.is_set()


async def test_a_service_that_cannot_get_ready_ends_with_the_reason(tmp_path: Path) -> None:
    may_fail = asyncio.Event()

    async def fail() -> None:
        await may_fail.wait()
        raise ZeroDivisionError

    async with living(tmp_path, get_ready=fail) as (life, _):
        may_fail.set()
        with pytest.raises(ZeroDivisionError):
            await life.end()
        assert life.closed.is_set()


async def test_a_service_that_cannot_listen_closes_what_it_had_opened(tmp_path: Path) -> None:
    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = server_settings(tmp_path, port=listener.getsockname()[1])
        with pytest.raises(CannotListen):
            await serve(host_of(settings, []), settings, Workload([], _at_once, close), StopSignals())
    assert closed.is_set()


async def test_its_log_tells_the_address_and_every_step(tmp_path: Path, events: list[Any]) -> None:
    async with living(tmp_path) as (life, channel):
        await health_becomes(channel, SERVING)
        life.signal()
        await life.end()
        steps = [event["event"] for event in events]
        assert [step for step in steps if step != "call"] == ["listening", "ready", "draining", "stopped"]
        assert {event["address"] for event in events if "address" in event} == {life.address}


async def test_watchers_of_the_health_check_do_not_hold_up_the_end(tmp_path: Path) -> None:
    async with living(tmp_path, drain_grace_seconds=3600) as (life, channel):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        async for update in watch:
            if update.status == SERVING:
                break
        life.signal()
        await asyncio.wait_for(asyncio.shield(life.task), PATIENCE)
