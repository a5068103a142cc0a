from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.strict_json import NotStrictJson, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES, st.booleans())
def test_json_is_read(value: object, ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


def test_a_whole_pair_of_surrogates_is_text() -> None:
    assert parse_json(rb'"\ud83d\ude00"') == "😀"


REFUSED = {
    "nothing": b"",
    "cut off": b'{"a": ',
    "more behind it": b"{} {}",
    "a comment": b"{} // no",
    "a comma at the end": b"[1,]",
    "single quotes": b"{'a': 1}",
    "a key twice": b'{"a": 1, "a": 1}',
    "a key twice further in": b'[{"b": {"a": 1, "\\u0061": 1}}]',
    "NaN": b"NaN",
    "Infinity": b"[Infinity]",
    "minus Infinity": b"[-Infinity]",
    "too large a number": b"1e400",
    "too many digits": b"1" * 5000,
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "half a surrogate": rb'"\ud800"',
    "half a surrogate in a key": rb'{"\udfff": 1}',
    "half a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "no UTF-8": b'"\xff"',
    "UTF-16": '"a"'.encode("utf-16"),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_strictly_json_is_refused_in_plain_words(data: bytes) -> None:
    with pytest.raises(NotStrictJson) as refused:
        parse_json(data)
    assert str(refused.value).isprintable()
    assert "Error" not in str(refused.value)


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        parse_json(data)
    except NotStrictJson:
        return
