"""Calls of every kind, by every client library, on every transport: all must behave in the same way."""

from __future__ import annotations

import grpc
import pytest

from tests.builders import PATIENCE
from tests.end_to_end.transports.callers import AsyncCaller, Caller, guarded
from tests.end_to_end.transports.orders import Order

UNARY = ["Unary", "ClientStream", "ReadClientStream"]
STREAMS = ["ServerStream", "WrittenServerStream", "Both", "ReadAndWritten"]
TEXTS = {
    "plain": "no such thing",
    "percent": "100% %41 %",
    "unicode": "é ☃ 日本 👩‍👩‍👧 \u202e",
    "controls": "one\ntwo\ttab \x7f",
    "spaces": "a  b",
}
HOUR = 3600.0
# grpc-js adds the second one itself.
OF_THE_LIBRARY = ("user-agent", "accept-encoding")
BINARY = (("a-bin", b""), ("b-bin", bytes(range(256))), ("c-bin", b","), ("d-bin", b"\0"))
ASCII = (("a", "".join(chr(code) for code in range(0x21, 0x7F))), ("b.c_d-e0", "x, y;z=1"), ("empty", ""))


@pytest.mark.parametrize("method", UNARY)
def test_a_call_with_one_answer_is_answered(address: str, caller: Caller, method: str) -> None:
    answer = caller.call(address, method, Order(text="one"))

    assert (answer.code, answer.message) == ("OK", "")
    assert [echo.text for echo in answer.echoes] == ["one"]


@pytest.mark.parametrize("method", ["ClientStream", "ReadClientStream"])
@pytest.mark.parametrize("number", [0, 1, 100])
def test_all_messages_of_a_request_arrive_in_order(address: str, caller: Caller, method: str, number: int) -> None:
    texts = [f"message {index}" for index in range(number)]
    answer = caller.call(address, method, *(Order(text=text) for text in texts))

    assert answer.code == "OK"
    assert [echo.texts for echo in answer.echoes] == [texts]


@pytest.mark.parametrize("method", ["ServerStream", "WrittenServerStream"])
@pytest.mark.parametrize("number", [0, 1, 100])
def test_all_messages_of_a_response_arrive(address: str, caller: Caller, method: str, number: int) -> None:
    answer = caller.call(address, method, Order(text="again", times=number))

    assert answer.code == "OK"
    assert [echo.text for echo in answer.echoes] == ["again"] * number


@pytest.mark.parametrize("method", ["Both", "ReadAndWritten"])
def test_both_sides_stream(address: str, caller: Caller, method: str) -> None:
    answer = caller.call(address, method, *(Order(text=str(number), times=number) for number in range(1, 20)))

    assert answer.code == "OK"
    assert [echo.text for echo in answer.echoes] == [str(number) for number in range(1, 20) for _ in range(number)]


@pytest.mark.parametrize("method", UNARY + STREAMS)
@pytest.mark.parametrize("code", [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_arrives(address: str, caller: Caller, method: str, code: str) -> None:
    answer = caller.call(address, method, Order(abort=(code, "as it is told"), trailing=(("key", "value"),)))

    assert (answer.code, answer.message, answer.echoes) == (code, "as it is told", [])
    assert answer.trailing == (("key", "value"),)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_every_message_of_a_status_arrives(address: str, caller: Caller, text: str) -> None:
    assert caller.call(address, "Unary", Order(abort=("ABORTED", text))).message == text


@pytest.mark.parametrize("method", UNARY)
def test_a_status_that_is_set_takes_the_place_of_the_answer(address: str, caller: Caller, method: str) -> None:
    answer = caller.call(address, method, Order(code="FAILED_PRECONDITION", details="not yet"))

    assert (answer.code, answer.message, answer.echoes) == ("FAILED_PRECONDITION", "not yet", [])


@pytest.mark.parametrize("method", STREAMS)
def test_a_status_that_is_set_follows_a_stream(address: str, caller: Caller, method: str) -> None:
    answer = caller.call(address, method, Order(code="DATA_LOSS", details="no more", times=3))

    assert (answer.code, answer.message, len(answer.echoes)) == ("DATA_LOSS", "no more", 3)


@pytest.mark.parametrize("method", UNARY + STREAMS)
@pytest.mark.parametrize("metadata", [(), ASCII, BINARY], ids=["none", "text", "binary"])
def test_metadata_arrive_at_both_ends_and_nothing_is_added(
    address: str, caller: Caller, method: str, metadata: tuple[tuple[str, str | bytes], ...]
) -> None:
    answer = caller.call(address, method, Order(initial=metadata, trailing=metadata), metadata=metadata)

    assert answer.initial == metadata
    assert answer.trailing == metadata
    (echo,) = answer.echoes
    assert tuple(sorted(pair for pair in echo.metadata if pair[0] not in OF_THE_LIBRARY)) == metadata


def test_values_of_one_key_all_arrive(address: str) -> None:
    metadata = (("key", "1"), ("key", "2"), ("key-bin", b"\1"), ("key-bin", b"\2"))
    # grpc-js joins the values.
    answer = AsyncCaller().call(address, "Unary", Order(initial=metadata, trailing=metadata), metadata=metadata)

    assert answer.initial == metadata
    assert answer.trailing == metadata
    assert set(metadata) <= set(answer.echoes[0].metadata)


@pytest.mark.parametrize("method", UNARY + STREAMS)
def test_a_servicer_sees_the_deadline_of_its_caller(address: str, caller: Caller, method: str) -> None:
    assert caller.call(address, method, Order(), seconds=None).echoes[0].remaining is None
    remaining = caller.call(address, method, Order(), seconds=HOUR).echoes[0].remaining
    assert remaining is not None
    # grpcio sends three digits of the timeout, rounded up.
    assert HOUR - PATIENCE < remaining < HOUR * 1.01


@pytest.mark.parametrize("method", UNARY + STREAMS)
def test_a_call_that_outlasts_its_deadline_exceeds_it(address: str, caller: Caller, method: str) -> None:
    assert caller.call(address, method, Order(wait="never"), seconds=0.1).code == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("method", UNARY + STREAMS)
@pytest.mark.parametrize(("asked", "answered"), [(True, False), (False, True), (True, True)])
def test_messages_may_be_compressed(address: str, caller: Caller, method: str, asked: bool, answered: bool) -> None:
    order = Order(text="text " * 1000, gzip=answered, size=100_000)
    answer = caller.call(address, method, order, gzip=asked)

    assert answer.code == "OK"
    assert [(echo.text, len(echo.ballast)) for echo in answer.echoes] == [(order.text, 100_000)]


@pytest.mark.parametrize("method", UNARY + STREAMS)
@pytest.mark.parametrize("gzip", [False, True])
def test_a_message_over_the_limit_is_refused(address: str, caller: Caller, method: str, gzip: bool) -> None:
    answer = caller.call(address, method, Order(ballast="a" * (1 << 20)), gzip=gzip)

    assert (answer.code, answer.echoes) == ("RESOURCE_EXHAUSTED", [])


@pytest.mark.parametrize("method", UNARY + STREAMS)
def test_a_message_close_to_the_limit_is_taken_and_answered(address: str, caller: Caller, method: str) -> None:
    answer = caller.call(address, method, Order(ballast="a" * ((1 << 20) - 100), size=3 << 20))

    assert (answer.code, len(answer.echoes[0].ballast)) == ("OK", 3 << 20)


@pytest.mark.parametrize("method", UNARY + STREAMS)
def test_an_answer_over_the_limit_of_the_caller_is_refused_by_it(address: str, caller: Caller, method: str) -> None:
    answer = caller.call(address, method, Order(size=5 << 20))

    assert (answer.code, answer.echoes) == ("RESOURCE_EXHAUSTED", [])
    assert caller.call(address, method, Order(text="next")).echoes[0].text == "next"


@pytest.mark.parametrize("path", ["/transports.Echo/Other", "/transports.Other/Unary", "/Unary"])
def test_what_is_not_there_is_unimplemented(address: str, caller: Caller, path: str) -> None:
    answer = caller.call(address, path, Order())

    assert (answer.code, answer.message) == ("UNIMPLEMENTED", "Method not found!")


def test_behind_the_boundary_a_servicer_that_fails_tells_nothing(address: str, caller: Caller) -> None:
    answer = caller.call(address, guarded("Unary"), Order(fails=True, text="secret"))

    assert answer.code == "INTERNAL"
    assert answer.message.startswith("internal error; the service's log has the details")
    assert "secret" not in answer.message


def test_behind_the_boundary_the_request_id_comes_back(address: str, caller: Caller) -> None:
    answer = caller.call(address, guarded("Unary"), Order(text="a"), metadata=(("x-request-id", "mine"),))

    assert (answer.code, answer.echoes[0].text) == ("OK", "a")
    assert answer.trailing == (("x-request-id", "mine"),)
