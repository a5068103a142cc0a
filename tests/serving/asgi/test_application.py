"""The application alone, on a fake server: what handlers see, and what is sent."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import grpc
import pytest
import structlog
from grpc import StatusCode

from grpc_http2.wire import framed
from serving.call import REQUEST_ID_KEY
from serving.errors import INTERNAL_MESSAGE
from serving.prediction import Query
from serving.stubs import prediction_service_pb2 as pb
from serving.transport.admission import Admission
from serving.transport.asgi.application import GrpcApplication
from serving.transport.boundary import Boundary
from serving.transport.guards import Guards
from tests.builders import PATIENCE, a_turn, echo, fake_predictor
from tests.serving.asgi.fake_server import PATH, FakeServer, answer_to

LIMIT = 1 << 12
COMPRESSES = [(b"grpc-accept-encoding", b"identity, deflate, gzip")]


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture(params=[True, False], ids=["as pyvoy does", "by the rules"])
def prompt(request: pytest.FixtureRequest) -> bool:
    """How the server answers ``receive``."""
    return bool(request.param)


def application(handler: grpc.RpcMethodHandler[Any, Any], **options: Any) -> GrpcApplication:
    made = GrpcApplication(**{"max_message_bytes": LIMIT, "unary_seconds": PATIENCE} | options)
    made.add_registered_method_handlers("test.Service", {"Method": handler})
    return made


def unary(behaviour: Callable[[bytes, Any], Any]) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(behaviour)


class Hanging:
    """A call that never ends by itself, and tells what becomes of it."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    def hangs_still(self) -> bool:
        """Whether it hangs still. A machine that is slow enough lets a deadline pass before it has started."""
        return self.started.is_set() and not self.cancelled.is_set()

    async def hang(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def unary(self, _: Any, __: Any) -> bytes:
        await self.hang()
        return b""

    async def stream(self, _: Any, __: Any) -> AsyncIterator[bytes]:
        await self.hang()
        yield b""

    async def written(self, _: Any, __: Any) -> None:
        await self.hang()

    def handlers(self) -> Mapping[str, grpc.RpcMethodHandler[Any, Any]]:
        return {
            "unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "client stream": grpc.stream_unary_rpc_method_handler(self.unary),
            "server stream": grpc.unary_stream_rpc_method_handler(self.stream),
            "written server stream": grpc.unary_stream_rpc_method_handler(self.written),
            "both": grpc.stream_stream_rpc_method_handler(self.stream),
            "written both": grpc.stream_stream_rpc_method_handler(self.written),
        }


KINDS = ["unary", "client stream", "server stream", "written server stream", "both", "written both"]


async def reversed_text(message: bytes, context: Any) -> bytes:
    del context
    return message[::-1]


# The four kinds of call


async def test_a_unary_call_is_answered(prompt: bool) -> None:
    answer = await answer_to(application(unary(reversed_text)), b"abc", prompt=prompt)

    assert answer.http_status == 200
    assert dict(answer.headers)[b"content-type"] == b"application/grpc"
    assert answer.messages == [b"cba"]
    assert answer.trailers == [(b"grpc-status", b"0")]


async def test_a_request_may_come_byte_by_byte(prompt: bool) -> None:
    server = FakeServer(application(unary(reversed_text)), prompt=prompt)
    for byte in framed(b"abc"):
        await a_turn()
        server.send_body(bytes([byte]))
    server.send_body(b"", more=False)

    assert (await server.answer()).messages == [b"cba"]


async def test_messages_are_read_and_written_as_the_handler_says() -> None:
    async def add(number: int, _: Any) -> int:
        return number + 1

    made = application(grpc.unary_unary_rpc_method_handler(add, int, lambda number: str(number).encode()))

    assert (await answer_to(made, b"41")).messages == [b"42"]


async def client_generator(messages: AsyncIterator[bytes], context: Any) -> bytes:
    del context
    return b"".join([message async for message in messages])


async def client_reader(_: Any, context: Any) -> bytes:
    read = []
    while (message := await context.read()) is not grpc.aio.EOF:
        read.append(message)
    assert await context.read() is grpc.aio.EOF, "the end is there to stay"
    return b"".join(read)


@pytest.mark.parametrize("behaviour", [client_generator, client_reader])
@pytest.mark.parametrize("messages", [(), (b"a",), (b"a", b"", b"bc")], ids=len)
async def test_a_stream_of_requests_is_read(behaviour: Any, messages: tuple[bytes, ...], prompt: bool) -> None:
    server = FakeServer(application(grpc.stream_unary_rpc_method_handler(behaviour)), prompt=prompt)
    for message in messages:
        server.send_messages(message, more=True)
        await a_turn()
    server.send_body(b"", more=False)
    answer = await server.answer()

    assert answer.messages == [b"".join(messages)]
    assert answer.code is StatusCode.OK


async def server_generator(message: bytes, context: Any) -> AsyncIterator[bytes]:
    del context
    for number in range(3):
        yield message + str(number).encode()


async def server_writer(message: bytes, context: Any) -> None:
    for number in range(3):
        await context.write(message + str(number).encode())


@pytest.mark.parametrize("behaviour", [server_generator, server_writer])
async def test_a_stream_of_responses_is_sent(behaviour: Any, prompt: bool) -> None:
    made = application(grpc.unary_stream_rpc_method_handler(behaviour))
    answer = await answer_to(made, b"m", prompt=prompt)

    assert answer.messages == [b"m0", b"m1", b"m2"]
    assert answer.code is StatusCode.OK


async def both_generator(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    del context
    async for message in messages:
        yield message[::-1]


async def both_writer(_: Any, context: Any) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(message[::-1])


@pytest.mark.parametrize("behaviour", [both_generator, both_writer])
async def test_both_sides_stream_in_turns(behaviour: Any, prompt: bool) -> None:
    server = FakeServer(application(grpc.stream_stream_rpc_method_handler(behaviour)), prompt=prompt)
    for number in range(1, 4):
        server.send_messages(b"ab", more=True)
        while len([event for event in server.sent if event.get("body")]) < number:
            await a_turn()
    server.send_body(b"", more=False)

    assert (await server.answer()).messages == [b"ba"] * 3


async def test_a_stream_without_a_message_has_headers_and_a_status() -> None:
    async def nothing(_: Any, __: Any) -> AsyncIterator[bytes]:
        for message in list[bytes]():
            yield message

    answer = await answer_to(application(grpc.unary_stream_rpc_method_handler(nothing)), b"")

    assert (answer.http_status, answer.messages, answer.code) == (200, [], StatusCode.OK)


async def test_methods_are_found_by_generic_handlers_too() -> None:
    made = GrpcApplication(max_message_bytes=LIMIT, unary_seconds=PATIENCE)
    handler = grpc.method_handlers_generic_handler("test.Service", {"Method": unary(reversed_text)})
    made.add_generic_rpc_handlers((handler,))

    assert (await answer_to(made, b"abc")).messages == [b"cba"]


# Requests that are wrong


@pytest.mark.parametrize("path", ["/test.Service/Other", "/test.Other/Method", "/", "", "/test.Service", f"{PATH}/"])
async def test_a_method_that_is_not_there_is_unimplemented(path: str) -> None:
    answer = await answer_to(application(unary(reversed_text)), b"abc", path=path)

    assert (answer.code, answer.message) == (StatusCode.UNIMPLEMENTED, "Method not found!")
    assert answer.messages == []


@pytest.mark.parametrize("content_type", [b"application/json", b"application/grpc-web", b"application/grpcx", b""])
async def test_what_is_no_grpc_is_refused_as_http_does(content_type: bytes) -> None:
    # Of two headers the later one counts.
    answer = await answer_to(application(unary(reversed_text)), b"abc", headers=[(b"content-type", content_type)])

    assert (answer.http_status, answer.trailers) == (415, [])


@pytest.mark.parametrize("content_type", [b"application/grpc+proto", b"application/grpc;charset=utf-8"])
async def test_grpc_may_tell_its_encoding(content_type: bytes) -> None:
    answer = await answer_to(application(unary(reversed_text)), b"abc", headers=[(b"content-type", content_type)])

    assert answer.code is StatusCode.OK


async def test_a_get_is_refused_as_http_does() -> None:
    assert (await answer_to(application(unary(reversed_text)), method="GET")).http_status == 415


async def test_what_is_no_grpc_may_go_elsewhere() -> None:
    async def elsewhere(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    made = application(unary(reversed_text))
    made.otherwise = elsewhere

    assert (await answer_to(made, method="GET")).http_status == 204
    assert (await answer_to(made, b"abc")).messages == [b"cba"]


@pytest.mark.parametrize("number", [0, 2, 3])
@pytest.mark.parametrize("kind", [grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler])
async def test_a_call_that_takes_one_message_refuses_more_and_less(kind: Any, number: int, prompt: bool) -> None:
    answer = await answer_to(application(kind(reversed_text)), *[b"a"] * number, prompt=prompt)

    assert answer.code is StatusCode.UNIMPLEMENTED
    assert answer.messages == []


HANDLERS = {
    "unary": unary(reversed_text),
    "client stream": grpc.stream_unary_rpc_method_handler(client_generator),
    "read client stream": grpc.stream_unary_rpc_method_handler(client_reader),
}
BAD_BODIES = {
    "cut short": (framed(b"abc")[:-1], StatusCode.INTERNAL),
    "half a prefix": (b"\0\0", StatusCode.INTERNAL),
    "too large": (framed(b"a" * (LIMIT + 1)), StatusCode.RESOURCE_EXHAUSTED),
    "announced too large": (b"\0\x40\0\0\0", StatusCode.RESOURCE_EXHAUSTED),
    "compressed unannounced": (framed(b"abc", compressed=True), StatusCode.INTERNAL),
    "a wrong flag": (b"\7\0\0\0\0", StatusCode.INTERNAL),
}


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS.keys())
@pytest.mark.parametrize(("body", "code"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_a_bad_body_is_refused(handler: Any, body: bytes, code: StatusCode, prompt: bool) -> None:
    server = FakeServer(application(handler), prompt=prompt)
    server.send_body(body, more=False)

    assert (await server.answer()).code is code


async def test_a_message_that_is_too_large_is_refused_before_it_has_come() -> None:
    server = FakeServer(application(unary(reversed_text)))
    server.send_body(b"\0\x40\0\0\0")

    assert (await server.answer()).code is StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("kind", [grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler])
async def test_a_message_that_cannot_be_read_is_an_internal_error(kind: Any) -> None:
    async def first(messages: Any, _: Any) -> bytes:
        return str([message async for message in messages]).encode()

    answer = await answer_to(application(kind(first, int)), b"secret")

    assert answer.code is StatusCode.INTERNAL
    assert "secret" not in answer.message


async def test_seventeen_kilobytes_of_metadata_are_refused() -> None:
    answer = await answer_to(application(unary(reversed_text)), b"abc", headers=[(b"large", b"a" * 17_000)])

    assert answer.code is StatusCode.RESOURCE_EXHAUSTED


async def test_many_small_metadata_are_refused_as_a_few_large_ones_are() -> None:
    answer = await answer_to(application(unary(reversed_text)), b"abc", headers=[(b"a", b"b")] * 500)

    assert answer.code is StatusCode.RESOURCE_EXHAUSTED


async def test_fifteen_kilobytes_of_metadata_are_taken() -> None:
    answer = await answer_to(application(unary(reversed_text)), b"abc", headers=[(b"large", b"a" * 15_000)])

    assert answer.code is StatusCode.OK


@pytest.mark.parametrize("value", [b"", b"1", b"S", b"1.5S", b"123456789S", b"-1S"])
async def test_a_timeout_that_is_none_is_an_internal_error(value: bytes) -> None:
    answer = await answer_to(application(unary(reversed_text)), b"abc", headers=[(b"grpc-timeout", value)])

    assert answer.code is StatusCode.INTERNAL


async def test_binary_metadata_that_are_not_base64_are_an_internal_error() -> None:
    async def look(_: bytes, context: Any) -> bytes:
        return str(context.invocation_metadata()).encode()

    answer = await answer_to(application(unary(look)), b"", headers=[(b"key-bin", b"*")])

    assert answer.code is StatusCode.INTERNAL


# Compression


async def test_compressed_requests_are_read(prompt: bool) -> None:
    server = FakeServer(application(unary(reversed_text)), headers=[(b"grpc-encoding", b"gzip")], prompt=prompt)
    server.send_body(framed(b"abc", compressed=True), more=False)

    assert (await server.answer()).messages == [b"cba"]


@pytest.mark.parametrize("encoding", [b"snappy", b"br", b"", b"GZIP"])
async def test_an_encoding_that_is_not_read_is_unimplemented(encoding: bytes) -> None:
    answer = await answer_to(application(unary(reversed_text)), b"abc", headers=[(b"grpc-encoding", encoding)])

    assert answer.code is StatusCode.UNIMPLEMENTED
    assert dict(answer.headers)[b"grpc-accept-encoding"] == b"identity,deflate,gzip"


async def compressed(message: bytes, context: Any) -> bytes:
    context.set_compression(grpc.Compression.Gzip)
    return message


async def compressed_stream(message: bytes, context: Any) -> AsyncIterator[bytes]:
    context.set_compression(grpc.Compression.Gzip)
    yield message
    context.disable_next_message_compression()
    yield message
    yield message


async def test_a_response_is_compressed_where_the_servicer_says_so() -> None:
    answer = await answer_to(application(unary(compressed)), b"a" * 1000, headers=COMPRESSES)

    assert dict(answer.headers)[b"grpc-encoding"] == b"gzip"
    ((flag, message),) = answer.frames
    assert flag
    assert len(message) < 100
    assert gzip.decompress(message) == b"a" * 1000


async def test_single_messages_of_a_stream_may_go_uncompressed() -> None:
    made = application(grpc.unary_stream_rpc_method_handler(compressed_stream))
    answer = await answer_to(made, b"abc", headers=COMPRESSES)

    assert [flag for flag, _ in answer.frames] == [True, False, True]
    assert answer.messages == [b"abc"] * 3


async def test_nothing_is_compressed_for_callers_who_do_not_read_it() -> None:
    answer = await answer_to(application(unary(compressed)), b"abc", headers=[(b"grpc-accept-encoding", b"identity")])

    assert b"grpc-encoding" not in dict(answer.headers)
    assert answer.frames == [(False, b"abc")]


async def test_compression_comes_before_the_first_message() -> None:
    async def late(message: bytes, context: Any) -> AsyncIterator[bytes]:
        yield message
        with pytest.raises(RuntimeError):
            context.set_compression(grpc.Compression.Gzip)

    answer = await answer_to(application(grpc.unary_stream_rpc_method_handler(late)), b"a", headers=COMPRESSES)

    assert answer.code is StatusCode.OK


# Statuses and metadata


async def test_a_servicer_may_abort() -> None:
    async def abort(_: bytes, context: Any) -> bytes:
        await context.abort(StatusCode.NOT_FOUND, "no such thing: é%", (("key", "value"),))
        raise AssertionError

    answer = await answer_to(application(unary(abort)), b"")

    assert (answer.code, answer.message, answer.messages) == (StatusCode.NOT_FOUND, "no such thing: é%", [])
    assert (b"key", b"value") in answer.trailers


async def test_an_abort_keeps_what_was_set_before_where_it_says_nothing() -> None:
    async def abort(_: bytes, context: Any) -> bytes:
        context.set_details("before")
        context.set_trailing_metadata((("key", "before"),))
        await context.abort_with_status(AStatus())
        raise AssertionError

    answer = await answer_to(application(unary(abort)), b"")

    assert (answer.code, answer.message) == (StatusCode.ABORTED, "before")
    assert (b"key", b"before") in answer.trailers


class AStatus(grpc.Status):
    code = StatusCode.ABORTED
    details = ""
    trailing_metadata = ()


async def test_an_abort_that_is_caught_is_one_all_the_same() -> None:
    async def abort(message: bytes, context: Any) -> AsyncIterator[bytes]:
        yield message
        try:
            await context.abort(StatusCode.ABORTED, "no more")
        except grpc.aio.AbortError:
            yield message

    answer = await answer_to(application(grpc.unary_stream_rpc_method_handler(abort)), b"a")

    assert answer.messages == [b"a"]
    assert (answer.code, answer.message) == (StatusCode.ABORTED, "no more")


async def test_nobody_aborts_with_ok() -> None:
    async def abort(_: bytes, context: Any) -> bytes:
        await context.abort(StatusCode.OK)
        raise AssertionError

    assert (await answer_to(application(unary(abort)), b"")).code is StatusCode.INTERNAL


async def test_a_status_that_was_set_takes_the_place_of_a_unary_response() -> None:
    async def refuse(message: bytes, context: Any) -> bytes:
        context.set_code(StatusCode.FAILED_PRECONDITION)
        context.set_details("not yet")
        assert (context.code(), context.details()) == (StatusCode.FAILED_PRECONDITION, "not yet")
        return message

    answer = await answer_to(application(unary(refuse)), b"a")

    assert (answer.code, answer.message) == (StatusCode.FAILED_PRECONDITION, "not yet")
    assert answer.messages == []


async def test_a_stream_that_was_sent_may_end_with_a_status() -> None:
    async def refuse(message: bytes, context: Any) -> AsyncIterator[bytes]:
        yield message
        context.set_code(StatusCode.DATA_LOSS)

    answer = await answer_to(application(grpc.unary_stream_rpc_method_handler(refuse)), b"a")

    assert (answer.code, answer.messages) == (StatusCode.DATA_LOSS, [b"a"])


async def test_metadata_go_both_ways() -> None:
    async def swap(message: bytes, context: Any) -> bytes:
        found = dict(context.invocation_metadata())
        await context.send_initial_metadata((("initial", found["first"]), ("initial-bin", b"\0\1")))
        context.set_trailing_metadata((("trailing-bin", found["second-bin"]),))
        assert context.trailing_metadata() == (("trailing-bin", b"\xff"),)
        return message

    headers = [(b"first", b"1"), (b"second-bin", b"/w")]
    answer = await answer_to(application(unary(swap)), b"a", headers=headers)

    assert {(b"initial", b"1"), (b"initial-bin", b"AAE")} <= set(answer.headers)
    assert (b"trailing-bin", b"/w") in answer.trailers
    assert answer.messages == [b"a"]


async def test_initial_metadata_leave_before_there_is_a_message() -> None:
    hanging = Hanging()

    async def tell(message: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("key", "value"),))
        await hanging.hang()
        return message

    server = FakeServer(application(unary(tell)))
    server.send_messages(b"a")
    await asyncio.wait_for(hanging.started.wait(), PATIENCE)

    # By the ASGI specification, headers leave with the first piece of the body.
    assert [event["type"] for event in server.sent] == ["http.response.start", "http.response.body"]
    server.leave()
    await server.ended()


async def test_initial_metadata_are_sent_once() -> None:
    async def tell(message: bytes, context: Any) -> bytes:
        await context.send_initial_metadata(())
        with pytest.raises(grpc.aio.UsageError):
            await context.send_initial_metadata(())
        return message

    assert (await answer_to(application(unary(tell)), b"a")).messages == [b"a"]


async def trails(message: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("key", "é"),))
    return message


async def trails_and_aborts(_: bytes, context: Any) -> bytes:
    await context.abort(StatusCode.NOT_FOUND, "secret", (("key", "é"),))
    raise AssertionError


async def leads(message: bytes, context: Any) -> bytes:
    await context.send_initial_metadata((("key", "é"),))
    return message


async def fails(_: bytes, __: Any) -> bytes:
    raise ZeroDivisionError("secret")


async def returns_nonsense(_: bytes, __: Any) -> Any:
    return object()


async def reads_a_unary_request(_: bytes, context: Any) -> Any:
    return await context.read()


async def writes_a_unary_response(message: bytes, context: Any) -> Any:
    await context.write(message)


@pytest.mark.parametrize(
    "behaviour",
    [fails, trails, trails_and_aborts, leads, returns_nonsense, reads_a_unary_request, writes_a_unary_response],
)
async def test_a_servicer_that_fails_is_an_internal_error_told_in_the_log(behaviour: Any, logged: list[Any]) -> None:
    answer = await answer_to(application(unary(behaviour)), b"")

    assert (answer.code, answer.message) == (StatusCode.INTERNAL, INTERNAL_MESSAGE)
    assert answer.messages == []
    ((event),) = logged
    assert (event["log_level"], event["path"]) == ("error", PATH)


async def test_a_stream_that_fails_keeps_what_it_has_sent() -> None:
    async def fail(message: bytes, _: Any) -> AsyncIterator[bytes]:
        yield message
        raise ZeroDivisionError

    answer = await answer_to(application(grpc.unary_stream_rpc_method_handler(fail)), b"a")

    assert (answer.code, answer.messages) == (StatusCode.INTERNAL, [b"a"])


async def test_a_servicer_sees_its_call() -> None:
    seen: dict[str, Any] = {}

    async def look(message: bytes, context: Any) -> bytes:
        seen["remaining"] = context.time_remaining()
        seen["peer"] = context.peer()
        seen["metadata"] = context.invocation_metadata()
        seen["before"] = (context.code(), context.details(), context.done(), context.cancelled())
        context.add_done_callback(lambda ended: seen.update(after=(ended.done(), ended.cancelled())))
        return message

    headers = [(b"grpc-timeout", b"1H"), (b"key", b"value")]
    await answer_to(application(unary(look)), b"a", headers=headers)

    assert 3600 - PATIENCE < seen["remaining"] <= 3600
    assert seen["peer"] == "ipv6:%5B::1%5D:5"
    assert seen["metadata"] == (("key", "value"),)
    assert seen["before"] == (None, "", False, False)
    assert seen["after"] == (True, False)


# Deadlines


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_outlasts_its_deadline_is_cancelled(kind: str, prompt: bool) -> None:
    hanging = Hanging()
    server = FakeServer(application(hanging.handlers()[kind]), headers=[(b"grpc-timeout", b"20m")], prompt=prompt)
    server.send_messages(b"")
    answer = await server.answer()

    assert answer.code is StatusCode.DEADLINE_EXCEEDED
    assert not hanging.hangs_still()


@pytest.mark.parametrize("value", [b"0S", b"1n"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_deadline_that_has_passed_already_is_exceeded(kind: str, value: bytes) -> None:
    handler = Hanging().handlers()[kind]
    answer = await answer_to(application(handler), b"", headers=[(b"grpc-timeout", value)])

    assert answer.code is StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", b"\0\0\0\0\2a"], ids=["nothing", "half a prefix", "half a message"])
async def test_a_request_that_never_becomes_whole_ends_at_the_deadline(body: bytes, prompt: bool) -> None:
    server = FakeServer(application(unary(reversed_text)), headers=[(b"grpc-timeout", b"20m")], prompt=prompt)
    server.send_body(body)

    assert (await server.answer()).code is StatusCode.DEADLINE_EXCEEDED


async def test_a_request_that_comes_slowly_uses_up_its_time(prompt: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = Hanging()
    server = FakeServer(application(unary(hanging.unary)), headers=[(b"grpc-timeout", b"1H")], prompt=prompt)
    server.send_body(framed(b"ab")[:3])
    await server.asked(2)
    let_pass(50 * 60, monkeypatch)
    server.send_body(framed(b"ab")[3:], more=False)
    await asyncio.wait_for(hanging.started.wait(), PATIENCE)
    let_pass(11 * 60, monkeypatch)

    assert (await server.answer()).code is StatusCode.DEADLINE_EXCEEDED


def let_pass(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the loop's clock forward."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + seconds)


async def test_unary_calls_without_a_deadline_get_one(prompt: bool) -> None:
    hanging = Hanging()
    remaining: list[float | None] = []

    async def hang(_: bytes, context: Any) -> bytes:
        remaining.append(context.time_remaining())
        await hanging.hang()
        return b""

    answer = await answer_to(application(unary(hang), unary_seconds=0.02), b"", prompt=prompt)

    assert answer.code is StatusCode.DEADLINE_EXCEEDED
    assert not hanging.hangs_still()
    assert set(remaining) <= {None}, "it is not the caller's"


async def test_a_request_that_never_becomes_whole_ends_though_it_has_no_deadline() -> None:
    server = FakeServer(application(unary(reversed_text), unary_seconds=0.02))
    server.send_body(b"\0")

    assert (await server.answer()).code is StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("value", [b"20m", None])
async def test_a_call_behind_the_boundary_ends_at_its_deadline(value: bytes | None, prompt: bool) -> None:
    hanging = Hanging()

    async def hang(_: Query) -> str:
        await hanging.hang()
        return ""

    made = GrpcApplication(max_message_bytes=LIMIT, unary_seconds=0.02)
    fake_predictor(hang).register(Boundary(made, default_deadline=0.02, guards=Guards(admission=Admission(10))))
    request = pb.PredictorPredictRequest(runId="a").SerializeToString()
    headers = [] if value is None else [(b"grpc-timeout", value)]
    path = "/prediction.Predictor/PredictorPredict"
    answer = await answer_to(made, request, path=path, headers=headers, prompt=prompt)

    assert answer.code is StatusCode.DEADLINE_EXCEEDED
    assert not hanging.hangs_still()


async def test_the_boundary_gives_back_the_request_id() -> None:
    made = GrpcApplication(max_message_bytes=LIMIT, unary_seconds=PATIENCE)
    fake_predictor(echo).register(Boundary(made, default_deadline=PATIENCE, guards=Guards(admission=Admission(10))))
    request = pb.PredictorPredictRequest(runId="a", document="hello").SerializeToString()
    headers = [(REQUEST_ID_KEY.encode(), b"mine")]
    answer = await answer_to(made, request, path="/prediction.Predictor/PredictorPredict", headers=headers)

    assert pb.PredictorPredictResponse.FromString(answer.messages[0]).label == "hello"
    assert (REQUEST_ID_KEY.encode(), b"mine") in answer.trailers


async def test_a_response_that_is_ready_is_sent_however_late_it_is() -> None:
    async def wait_on(_: bytes, __: Any) -> bytes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return b"ready"
        raise AssertionError

    answer = await answer_to(application(unary(wait_on)), b"", headers=[(b"grpc-timeout", b"1m")])

    assert (answer.code, answer.messages) == (StatusCode.OK, [b"ready"])


# Callers who leave, and callers who read slowly


@pytest.mark.parametrize(
    ("kind", "complete"),
    [*((kind, True) for kind in KINDS), ("client stream", False), ("both", False), ("written both", False)],
)
async def test_a_caller_who_leaves_cancels_the_call(kind: str, complete: bool, prompt: bool) -> None:
    hanging = Hanging()
    server = FakeServer(application(hanging.handlers()[kind]), prompt=prompt)
    server.send_messages(b"", more=not complete)
    await asyncio.wait_for(hanging.started.wait(), PATIENCE)
    server.leave()
    await server.ended()

    assert hanging.cancelled.is_set()
    assert server.sent == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_caller_who_leaves_late_cancels_the_call_too(kind: str) -> None:
    hanging = Hanging()
    server = FakeServer(application(hanging.handlers()[kind]))
    server.send_messages(b"")
    # It has been asked whether the caller has left, more than once, and has said no.
    await server.asked(4)
    server.leave()
    await server.ended()

    assert hanging.cancelled.is_set()


async def test_a_caller_who_leaves_before_the_request_is_whole_is_not_served(prompt: bool) -> None:
    hanging = Hanging()
    server = FakeServer(application(hanging.handlers()["unary"]), prompt=prompt)
    server.send_body(b"\0\0")
    await a_turn()
    server.leave()
    await server.ended()

    assert not hanging.started.is_set()
    assert server.sent == []


async def test_a_call_that_was_left_says_so_when_it_ends() -> None:
    hanging = Hanging()
    seen = []

    async def hang(_: bytes, context: Any) -> bytes:
        context.add_done_callback(lambda ended: seen.append((ended.done(), ended.cancelled())))
        await hanging.hang()
        return b""

    server = FakeServer(application(unary(hang)))
    server.send_messages(b"")
    await asyncio.wait_for(hanging.started.wait(), PATIENCE)
    server.leave()
    await server.ended()

    assert seen == [(True, True)]


async def test_most_calls_are_over_before_the_server_is_asked_who_has_left() -> None:
    server = FakeServer(application(unary(reversed_text)))
    server.send_messages(b"abc")
    await server.answer()

    assert server.received == 1


async def stream_on(message: bytes, _: Any) -> AsyncIterator[bytes]:
    while True:
        yield message


async def write_on(message: bytes, context: Any) -> None:
    while True:
        await context.write(message)


@pytest.mark.parametrize("behaviour", [stream_on, write_on])
async def test_a_caller_who_reads_nothing_gets_nothing_more(behaviour: Any, prompt: bool) -> None:
    server = FakeServer(application(grpc.unary_stream_rpc_method_handler(behaviour)), prompt=prompt)
    server.stall()
    server.send_messages(b"a")
    await a_turn(50)
    stalled = len(server.sent)
    server.flow()
    server.stall()
    await a_turn(50)
    more = len(server.sent)
    server.leave()
    await server.ended()

    assert (stalled, more) == (2, 3), "the headers and a message; then one more"


@pytest.mark.parametrize("behaviour", [stream_on, write_on])
async def test_a_call_whose_caller_reads_nothing_ends_at_the_deadline(behaviour: Any, prompt: bool) -> None:
    made = application(grpc.unary_stream_rpc_method_handler(behaviour))
    server = FakeServer(made, headers=[(b"grpc-timeout", b"20m")], prompt=prompt)
    server.stall()
    server.send_messages(b"a")
    answer = await server.answer()

    assert answer.code is StatusCode.DEADLINE_EXCEEDED


async def test_a_stream_is_read_ahead_only_a_little(prompt: bool) -> None:
    hanging = Hanging()
    server = FakeServer(application(hanging.handlers()["client stream"]), prompt=prompt)
    for _ in range(1000):
        server.send_messages(b"a", more=True)
        await a_turn(2)

    assert server.received < 30
    server.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server.ended()


async def test_a_server_that_stops_cancels_the_call_and_learns_it() -> None:
    hanging = Hanging()
    server = FakeServer(application(hanging.handlers()["unary"]))
    server.send_messages(b"")
    await asyncio.wait_for(hanging.started.wait(), PATIENCE)
    server.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server.ended()

    assert hanging.cancelled.is_set()
