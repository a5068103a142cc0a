"""Bytes on the wire: encodings, timeouts and statuses as in gRPC's specification, on every transport."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from urllib.parse import unquote

import pytest

from tests.builders import PATIENCE
from tests.end_to_end.transports.callers import SyncCaller, guarded
from tests.end_to_end.transports.orders import Order
from tests.end_to_end.transports.test_calls import STREAMS, TEXTS, UNARY
from tests.end_to_end.transports.wire import WireCaller, framed, prefixed, wire_to

METHODS = UNARY + STREAMS
# The servicers of these methods receive the first message before there is a second.
READ_BY_SERVICERS = {"ClientStream", "ReadClientStream", "Both", "ReadAndWritten"}
INTERNAL, UNIMPLEMENTED = "13", "12"


@pytest.fixture
def wire(address: str) -> Iterator[WireCaller]:
    with wire_to(address) as caller:
        yield caller


def gzipped(message: bytes) -> bytes:
    return zlib.compress(message, wbits=31)


@pytest.mark.parametrize("method", [*METHODS, guarded("Unary")])
@pytest.mark.parametrize("encoding", [None, "identity", "gzip"])
def test_plain_messages_are_read_whatever_the_encoding(wire: WireCaller, method: str, encoding: str | None) -> None:
    headers = () if encoding is None else (("grpc-encoding", encoding),)
    response = wire.call(method, framed(Order(text="plain")), *headers)

    assert (response.status, response.echo().text) == ("0", "plain")


@pytest.mark.parametrize("method", [*METHODS, guarded("Unary")])
def test_gzipped_messages_are_read(wire: WireCaller, method: str) -> None:
    body = prefixed(gzipped(Order(text="small").to_wire()), compressed=True)
    response = wire.call(method, body, ("grpc-encoding", "gzip"))

    assert (response.status, response.echo().text) == ("0", "small")


@pytest.mark.parametrize("method", [*METHODS, guarded("Unary")])
@pytest.mark.parametrize("encoding", ["br", "no-such-encoding"])
def test_an_encoding_that_is_not_known_is_refused(wire: WireCaller, method: str, encoding: str) -> None:
    response = wire.call(method, prefixed(b"who knows", compressed=True), ("grpc-encoding", encoding))

    # The specification requires UNIMPLEMENTED; grpcio sends INTERNAL.
    assert response.status in (UNIMPLEMENTED, INTERNAL)
    assert response.body == b""
    assert wire.call(method, framed(Order(text="next"))).echo().text == "next"


@pytest.mark.parametrize("method", [*METHODS, guarded("Unary")])
def test_a_compressed_message_of_a_call_that_does_not_say_how_is_an_internal_error(
    wire: WireCaller, method: str
) -> None:
    response = wire.call(method, prefixed(gzipped(Order().to_wire()), compressed=True))

    assert (response.status, response.body) == (INTERNAL, b"")


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_that_is_compressed_says_how(wire: WireCaller, method: str) -> None:
    order = framed(Order(gzip=True, size=100_000))
    response = wire.call(method, order, ("grpc-accept-encoding", "identity,gzip"))

    # grpcio compresses only the messages of streams.
    assert (response.status, response.echo().ballast) == ("0", "." * 100_000)


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("2H", 7200), ("90M", 5400), ("3600S", 3600), ("99999999m", 99_999.999), ("99999999u", 99.999999)],
)
def test_every_unit_of_a_timeout_is_read(wire: WireCaller, timeout: str, seconds: float) -> None:
    remaining = wire.call("Unary", framed(Order()), ("grpc-timeout", timeout)).echo().remaining

    assert remaining is not None
    assert seconds - PATIENCE < remaining <= seconds


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_the_message_of_a_status_is_percent_encoded(wire: WireCaller, text: str) -> None:
    response = wire.call("Unary", framed(Order(abort=("ABORTED", text))))

    encoded = response.trailers.get("grpc-message") or response.headers["grpc-message"]
    assert encoded.isascii()
    assert encoded.isprintable()
    assert unquote(encoded) == text


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["resets it", "closes the connection"])
def test_a_caller_who_leaves_in_the_middle_of_a_message_ends_the_call(address: str, method: str, how: str) -> None:
    name = f"left in {method} by one who {how}"
    half = framed(Order(ballast="." * 1000))[:500]
    with wire_to(address) as wire:
        if method in READ_BY_SERVICERS:
            call = wire.start(method, framed(Order(name=name)) + half, whole=False)
            assert SyncCaller().call(address, "Noted", Order(name=f"{name} started")).code == "OK"
        else:
            call = wire.start(method, half, whole=False)
        if how == "resets it":
            wire.leave(call)
            assert wire.call("Unary", framed(Order(text="next"))).echo().text == "next"

    if method in READ_BY_SERVICERS:
        assert SyncCaller().call(address, "Noted", Order(name=f"{name} over")).code == "OK"
    assert SyncCaller().call(address, method, Order(text="next")).echoes[0].text == "next"
