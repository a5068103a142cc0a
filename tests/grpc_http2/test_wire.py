"""gRPC over HTTP/2 as bytes, against the rules of ``PROTOCOL-HTTP2.md``."""

from __future__ import annotations

import base64
import gzip
import re
import tracemalloc
import zlib
from collections.abc import Sequence
from itertools import pairwise
from urllib.parse import unquote, unquote_to_bytes

import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from grpc_http2.wire import (
    DEFLATE,
    GZIP,
    IDENTITY,
    MessageReader,
    WireError,
    framed,
    metadata_headers,
    metadata_of,
    seconds_of_timeout,
    status_headers,
)

LIMIT = 1 << 10
UNITS = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}

printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
keys = st.from_regex(r"[0-9a-z_.-]{1,20}", fullmatch=True).filter(
    lambda key: (
        not key.startswith("grpc-")
        and not key.endswith("-bin")
        and key not in ("host", "te", "content-type", "content-length")
    )
)
metadata = st.lists(
    st.tuples(keys, printable) | st.tuples(keys.map(lambda key: f"{key}-bin"), st.binary(max_size=30)), max_size=8
)


def refusal_of(reader: MessageReader, body: bytes) -> WireError:
    with pytest.raises(WireError) as refusal:
        reader.feed(body)
    return refusal.value


# Timeouts


@given(st.integers(0, 99_999_999), st.sampled_from(sorted(UNITS)))
def test_a_timeout_is_a_number_and_a_unit(number: int, unit: str) -> None:
    assert seconds_of_timeout(f"{number}{unit}".encode()) == pytest.approx(number * UNITS[unit])


@pytest.mark.parametrize(
    "value", ["", "S", "5", "5s", "123456789S", "-1S", "+1S", "1.5S", " 1S", "1S ", "1S\n", "1 S", "0x1S", "٣S", "1SS"]
)
def test_what_is_no_timeout_is_refused(value: str) -> None:
    with pytest.raises(WireError) as refusal:
        seconds_of_timeout(value.encode())
    assert refusal.value.code is StatusCode.INTERNAL


@given(st.binary(max_size=12))
def test_any_bytes_are_a_timeout_or_refused(value: bytes) -> None:
    try:
        seconds = seconds_of_timeout(value)
    except WireError:
        assert not re.fullmatch(rb"[0-9]{1,8}[HMSmun]", value)
    else:
        assert 0 <= seconds < 1e12


# Statuses


@pytest.mark.parametrize("code", StatusCode)
def test_a_status_is_told_by_its_number(code: StatusCode) -> None:
    assert status_headers(code, "", ()) == [(b"grpc-status", str(code.value[0]).encode())]


@given(st.text().filter(bool))
def test_a_message_is_percent_encoded_as_grpc_says_and_comes_back(message: str) -> None:
    ((_, _), (name, encoded)) = status_headers(StatusCode.ABORTED, message, ())

    assert name == b"grpc-message"
    # Printable ASCII except the percent sign is sent as is; everything else is %XX of UTF-8.
    assert re.fullmatch(rb"(?:[\x20-\x24\x26-\x7e]|%[0-9A-F]{2})*", encoded)
    assert not re.search(rb"%(?:2[^5]|[3-6][0-9A-F]|7[0-9A-E])", encoded), "nothing is encoded that need not be"
    assert unquote_to_bytes(encoded) == message.encode()


def test_a_message_that_is_no_text_is_sent_all_the_same() -> None:
    (_, (_, encoded)) = status_headers(StatusCode.ABORTED, "before \ud800 after", ())

    assert unquote(encoded.decode("ascii")) == "before ? after"


def test_metadata_follow_the_status() -> None:
    headers = status_headers(StatusCode.OK, "", [("request", "1")])

    assert headers == [(b"grpc-status", b"0"), (b"request", b"1")]


# Metadata


@given(metadata)
def test_metadata_come_back_as_they_were_sent(sent: list[tuple[str, str | bytes]]) -> None:
    assert metadata_of(metadata_headers(sent)) == tuple(sent)


def test_keys_are_sent_in_lower_case() -> None:
    assert metadata_headers([("X-Key", "Value"), ("X-Key-Bin", b"\0")]) == [(b"x-key", b"Value"), (b"x-key-bin", b"AA")]


def test_servicers_may_say_when_a_call_is_tried_again() -> None:
    assert metadata_headers((("grpc-retry-pushback-ms", "-1"),)) == [(b"grpc-retry-pushback-ms", b"-1")]


@pytest.mark.parametrize("key", ["", "a b", "a\n", "ключ", "a:b", ":path", "grpc-status", "GRPC-Status", "a/b"])
def test_a_key_that_cannot_be_sent_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="not a metadata key"):
        metadata_headers([(key, "value")])


@pytest.mark.parametrize("value", ["line\nbreak", "\x00", "\x7f", "é", "tab\t", b"\xff", b"\n"])
def test_a_value_that_cannot_be_sent_is_refused(value: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"ascii|ASCII"):
        metadata_headers([("key", value)])


def test_text_of_a_binary_key_is_sent_as_utf_8() -> None:
    assert metadata_of(metadata_headers([("key-bin", "é")])) == (("key-bin", "é".encode()),)


def test_what_belongs_to_the_transport_is_no_metadata() -> None:
    own = [b":path", b"te", b"host", b"content-type", b"content-length", b"grpc-timeout", b"grpc-encoding", b"grpc-x"]

    assert metadata_of([(name, b"x") for name in own] + [(b"user-agent", b"me")]) == (("user-agent", "me"),)


@given(st.lists(st.binary(max_size=10), min_size=1, max_size=4), st.booleans())
def test_values_joined_by_commas_and_padded_or_not_are_told_apart(values: list[bytes], padded: bool) -> None:
    encoded = [base64.b64encode(value) for value in values]
    joined = b", ".join(value if padded else value.rstrip(b"=") for value in encoded)

    assert metadata_of([(b"key-bin", joined)]) == tuple(("key-bin", value) for value in values)


@pytest.mark.parametrize("value", [b"A", b"****", b"A A=", b"\xff\xff\xff\xff"])
def test_a_binary_value_that_is_not_base64_is_refused(value: bytes) -> None:
    with pytest.raises(WireError) as refusal:
        metadata_of([(b"key-bin", value)])
    assert refusal.value.code is StatusCode.INTERNAL


# Messages


def in_pieces(body: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[start:end] for start, end in pairwise(places)]


@given(
    st.lists(st.tuples(st.binary(max_size=200), st.booleans()), max_size=6),
    st.lists(st.integers(0, 10_000), max_size=12),
)
def test_messages_come_back_whatever_the_pieces_they_arrive_in(
    messages: list[tuple[bytes, bool]], cuts: list[int]
) -> None:
    body = b"".join(framed(message, compressed=compressed) for message, compressed in messages)
    reader = MessageReader(LIMIT, GZIP)

    read = [message for piece in in_pieces(body, cuts) for message in reader.feed(piece)]
    reader.end()

    assert read == [message for message, _ in messages]


@given(st.binary(min_size=1, max_size=100), st.booleans(), st.data())
def test_half_a_message_is_refused_at_the_end(message: bytes, compressed: bool, data: st.DataObject) -> None:
    body = framed(message, compressed=compressed)
    reader = MessageReader(LIMIT, GZIP)

    assert reader.feed(body[: data.draw(st.integers(1, len(body) - 1))]) in ((), [])
    with pytest.raises(WireError, match="middle of a message") as refusal:
        reader.end()
    assert refusal.value.code is StatusCode.INTERNAL


@given(st.binary(max_size=300), st.sampled_from([IDENTITY, GZIP, DEFLATE]))
def test_any_bytes_are_messages_or_refused(body: bytes, encoding: bytes) -> None:
    reader = MessageReader(LIMIT, encoding)
    try:
        messages = reader.feed(body)
        reader.end()
    except WireError as refusal:
        code: StatusCode | None = refusal.code
    else:
        code = None
        assert all(len(message) <= LIMIT for message in messages)
    assert code in (None, StatusCode.INTERNAL, StatusCode.RESOURCE_EXHAUSTED)


@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_message_up_to_the_limit_is_taken(size: int, compressed: bool) -> None:
    assert list(MessageReader(LIMIT, GZIP).feed(framed(b"a" * size, compressed=compressed))) == [b"a" * size]


def test_a_message_over_the_limit_is_refused_when_it_is_announced() -> None:
    refusal = refusal_of(MessageReader(LIMIT, IDENTITY), b"\0" + (LIMIT + 1).to_bytes(4, "big"))

    assert refusal.code is StatusCode.RESOURCE_EXHAUSTED
    assert str(LIMIT) in str(refusal)


def test_a_message_over_the_limit_is_refused_though_it_came_at_one_go_or_byte_by_byte() -> None:
    body = framed(b"a" * (LIMIT + 1))
    assert refusal_of(MessageReader(LIMIT, IDENTITY), body).code is StatusCode.RESOURCE_EXHAUSTED

    reader = MessageReader(LIMIT, IDENTITY)
    assert all(reader.feed(body[at : at + 1]) == [] for at in range(4))
    assert refusal_of(reader, body[4:5]).code is StatusCode.RESOURCE_EXHAUSTED


def test_a_message_that_grows_by_one_byte_over_the_limit_is_refused() -> None:
    refusal = refusal_of(MessageReader(LIMIT, GZIP), framed(b"a" * (LIMIT + 1), compressed=True))

    assert refusal.code is StatusCode.RESOURCE_EXHAUSTED


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    bomb = framed(b"\0" * (64 << 20), compressed=True)
    limit = 1 << 18
    assert len(bomb) < limit
    reader = MessageReader(limit, GZIP)

    tracemalloc.start()
    try:
        refusal = refusal_of(reader, bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert refusal.code is StatusCode.RESOURCE_EXHAUSTED
    assert peak < 8 * limit


def test_a_small_message_is_not_made_larger_than_it_need_be() -> None:
    assert framed(b"abc") == b"\0\0\0\0\3abc"
    assert gzip.decompress(framed(b"abc", compressed=True)[5:]) == b"abc"


def test_deflated_messages_are_read() -> None:
    deflated = zlib.compress(b"abc")

    assert MessageReader(LIMIT, DEFLATE).feed(b"\1" + len(deflated).to_bytes(4, "big") + deflated) == [b"abc"]


DAMAGED = {
    "a compressed message of a call that has no encoding": (IDENTITY, framed(b"abc", compressed=True)),
    "a flag that means nothing": (GZIP, b"\2\0\0\0\1a"),
    "garbage": (GZIP, b"\1\0\0\0\3abc"),
    "nothing": (GZIP, b"\1\0\0\0\0"),
    "cut short": (GZIP, b"\1\0\0\0\x0c" + gzip.compress(b"abc")[:12]),
    "a wrong sum": (GZIP, b"\1\0\0\0\x17" + gzip.compress(b"abc")[:-8] + b"\0" * 8),
    "another encoding": (DEFLATE, framed(b"abc", compressed=True)),
}


@pytest.mark.parametrize(("encoding", "body"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_message_is_refused(encoding: bytes, body: bytes) -> None:
    assert refusal_of(MessageReader(LIMIT, encoding), body).code is StatusCode.INTERNAL
