"""The short cut for whole requests, against the reader that takes everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpc_http2.wire import GZIP, MessageReader, WireError, framed
from serving.transport.asgi.requests import whole_message

LIMIT = 100


@given(st.binary(max_size=LIMIT))
def test_a_whole_request_is_its_message(message: bytes) -> None:
    assert whole_message({"type": "http.request", "body": framed(message), "more_body": False}, LIMIT) == message


@given(st.binary(max_size=2 * LIMIT) | st.binary(max_size=2 * LIMIT).map(framed))
def test_the_short_cut_gives_what_the_reader_gives_or_leaves_it_to_it(body: bytes) -> None:
    short = whole_message({"type": "http.request", "body": body}, LIMIT)
    reader = MessageReader(LIMIT, GZIP)
    try:
        read = list(reader.feed(body))
        reader.end()
    except WireError:
        read = []

    assert short is None or [short] == read


@pytest.mark.parametrize(
    "event",
    [
        {"type": "http.request", "body": framed(b"a"), "more_body": True},
        {"type": "http.request", "body": framed(b"a", compressed=True)},
        {"type": "http.request", "body": framed(b"a" * (LIMIT + 1))},
        {"type": "http.request", "body": framed(b"a") * 2},
        {"type": "http.request", "body": b"\0\0\0\0"},
        {"type": "http.request"},
        {"type": "http.disconnect"},
    ],
)
def test_what_is_not_one_whole_plain_message_within_the_limit_is_left_to_the_reader(event: dict[str, object]) -> None:
    assert whole_message(event, LIMIT) is None
