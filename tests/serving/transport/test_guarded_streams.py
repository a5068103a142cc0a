"""Streams behind the boundary: errors become statuses, their number is bounded, and they end with the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from intent_serving_client.metadata import REQUEST_ID_KEY
from serving.call.call import current_call
from serving.call.identity import ANYBODY, Identity, Right
from serving.call.presented import Presented
from serving.domain.errors import INTERNAL_MESSAGE, ModelNotFound, PermissionDenied, Unauthenticated
from serving.runtime.lifecycle import Host
from serving.stubs import model_service_pb2 as pb
from serving.stubs import model_service_pb2_grpc as pb_grpc
from serving.transport.boundary import MOST_STREAMS
from serving.transport.guards import Guards, OpenAccess
from serving.transport.service import Service, service
from tests.builders import PATIENCE, channel_to, host_of, server_settings

pytestmark = pytest.mark.usefixtures("each_transport")

NAME = "prediction.ModelService"

Stream = Callable[[pb.WatchModelsRequest], AsyncIterator[str]]


class FakeModelService(pb_grpc.ModelServiceServicer):
    """A service whose watch yields the names of ``stream``."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def WatchModels(  # noqa: N802 - the contract names it
        self, request: pb.WatchModelsRequest, call: Any
    ) -> AsyncIterator[pb.ModelChange]:
        del call
        async for name in self._stream(request):
            yield pb.ModelChange(runId=name)


def fake(stream: Stream) -> Service:
    # The fake need not implement every method of the service.
    kind: Any = FakeModelService
    add = pb_grpc.add_ModelServiceServicer_to_server
    return service(NAME, add, kind(stream), {"WatchModels": Right.PREDICT})


@asynccontextmanager
async def watching(model_dir: Path, stream: Stream, guards: Guards) -> AsyncIterator[tuple[Any, Host]]:
    host = host_of(server_settings(model_dir), [fake(stream)], guards)
    address = await host.start()
    try:
        async with channel_to(address) as channel:
            yield pb_grpc.ModelServiceStub(channel).WatchModels, host
    finally:
        await host.stop(0)


async def told(call: Any) -> list[str]:
    return [change.runId async for change in call]


async def failure_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await told(call)
    return caught.value


async def endless(_: pb.WatchModelsRequest) -> AsyncIterator[str]:
    yield "first"
    await asyncio.Event().wait()


async def test_a_stream_is_told_message_by_message_and_marked_as_ours(tmp_path: Path) -> None:
    async def three(request: pb.WatchModelsRequest) -> AsyncIterator[str]:
        for number in range(3):
            yield f"{request.prefix}{number}"

    async with watching(tmp_path, three, Guards()) as (watch, _):
        call = watch(pb.WatchModelsRequest(prefix="a"), metadata=((REQUEST_ID_KEY, "my-id"),))
        assert await told(call) == ["a0", "a1", "a2"]
        assert dict(await call.trailing_metadata())[REQUEST_ID_KEY] == "my-id"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ModelNotFound("what to do"), StatusCode.NOT_FOUND, "what to do"),
        (OSError("/secret"), StatusCode.INTERNAL, INTERNAL_MESSAGE),
    ],
    ids=["ours", "foreign"],
)
async def test_an_error_in_the_middle_of_a_stream_is_told(
    error: Exception, code: StatusCode, message: str, tmp_path: Path
) -> None:
    async def fails(_: pb.WatchModelsRequest) -> AsyncIterator[str]:
        yield "first"
        raise error

    async with watching(tmp_path, fails, Guards()) as (watch, _):
        failure = await failure_of(watch(pb.WatchModelsRequest()))
        assert (failure.code(), failure.details()) == (code, message)


async def test_a_request_that_is_no_message_is_the_callers_fault(tmp_path: Path) -> None:
    host = host_of(server_settings(tmp_path), [fake(endless)])
    async with channel_to(await host.start()) as channel:
        watch: Any = channel.unary_stream(f"/{NAME}/WatchModels")
        failure = await failure_of(watch(b"\xff"))
        assert failure.code() is StatusCode.INVALID_ARGUMENT
    await host.stop(0)


async def test_there_are_only_so_many_streams_and_one_that_ends_makes_room(tmp_path: Path) -> None:
    async with watching(tmp_path, endless, Guards()) as (watch, _):
        open_streams = [watch(pb.WatchModelsRequest()) for _ in range(MOST_STREAMS)]
        for stream in open_streams:
            assert (await stream.read()).runId == "first"
        refused = await failure_of(watch(pb.WatchModelsRequest()))
        assert refused.code() is StatusCode.RESOURCE_EXHAUSTED
        open_streams.pop().cancel()

        async def opened() -> None:
            while True:
                stream = watch(pb.WatchModelsRequest())
                try:
                    await stream.read()
                except grpc.aio.AioRpcError:
                    continue
                open_streams.append(stream)
                return

        await asyncio.wait_for(opened(), PATIENCE)


async def test_streams_end_with_the_service_and_do_not_hold_up_its_drain(tmp_path: Path) -> None:
    async with watching(tmp_path, endless, Guards()) as (watch, host):
        stream = watch(pb.WatchModelsRequest())
        assert (await stream.read()).runId == "first"
        await asyncio.wait_for(host.stop(PATIENCE), PATIENCE / 2)
        assert await stream.code() is StatusCode.UNAVAILABLE


class FakeAccess(OpenAccess):
    """A fake that knows one caller, who may predict."""

    def identify(self, presented: Presented) -> Identity:
        if presented.metadatum("who") != "known":
            raise Unauthenticated("say who you are")
        return Identity("known", frozenset({Right.PREDICT}), ("*",))

    def check_method(self, identity: Identity, asked: Right | tuple[Right, ...] | None) -> None:
        if asked is not Right.PREDICT:
            raise PermissionDenied("no")
        identity.check_right(asked)


async def test_who_watches_is_asked_before_anything_else(tmp_path: Path) -> None:
    async def caller(_: pb.WatchModelsRequest) -> AsyncIterator[str]:
        yield current_call().identity.name

    async with watching(tmp_path, caller, Guards(access=FakeAccess())) as (watch, _):
        assert await told(watch(pb.WatchModelsRequest(), metadata=(("who", "known"),))) == ["known"]
        failure = await failure_of(watch(pb.WatchModelsRequest()))
        assert (failure.code(), failure.details()) == (StatusCode.UNAUTHENTICATED, "say who you are")


async def test_nobody_is_asked_where_no_access_is_configured(tmp_path: Path) -> None:
    async def caller(_: pb.WatchModelsRequest) -> AsyncIterator[str]:
        assert current_call().identity is ANYBODY
        yield "anybody"

    async with watching(tmp_path, caller, Guards()) as (watch, _):
        assert await told(watch(pb.WatchModelsRequest())) == ["anybody"]
