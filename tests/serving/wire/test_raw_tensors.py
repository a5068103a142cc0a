from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.errors import InvalidRequest
from serving.wire.raw_tensors import pack_bytes, pack_floats, unpack_bytes, unpack_floats
from tests.serving.refusals import refused

ELEMENTS = st.lists(st.binary(max_size=300), max_size=20)


def test_an_element_is_its_length_in_four_little_endian_bytes_and_then_its_bytes() -> None:
    assert pack_bytes([b"ab", b"", "é".encode()]) == b"\x02\x00\x00\x00ab\x00\x00\x00\x00\x02\x00\x00\x00\xc3\xa9"
    assert pack_bytes([]) == b""
    assert pack_bytes([b"x" * 0x1234])[:4] == b"\x34\x12\x00\x00"


@given(ELEMENTS)
def test_elements_come_back_as_they_were(elements: list[bytes]) -> None:
    assert unpack_bytes(pack_bytes(elements)) == elements


@given(ELEMENTS.filter(bool), st.data())
def test_what_is_cut_off_is_refused_or_has_fewer_whole_elements(elements: list[bytes], data: st.DataObject) -> None:
    whole = pack_bytes(elements)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    boundaries = {len(pack_bytes(elements[:count])): count for count in range(len(elements))}
    if len(cut) in boundaries:
        assert unpack_bytes(cut) == elements[: boundaries[len(cut)]]
    else:
        with refused(InvalidRequest):
            unpack_bytes(cut)


@given(st.binary(max_size=64))
def test_any_bytes_are_elements_or_refused(raw: bytes) -> None:
    try:
        elements = unpack_bytes(raw)
    except InvalidRequest:
        return
    assert pack_bytes(elements) == raw


@pytest.mark.parametrize(
    "raw", [b"\x01", b"\x01\x00\x00", b"\x01\x00\x00\x00", b"\xff\xff\xff\xffx", b"\x00\x00\x00\x00\x00"]
)
def test_a_length_that_leads_beyond_the_end_is_refused(raw: bytes) -> None:
    with refused(InvalidRequest, match="BYTES"):
        unpack_bytes(raw)


@given(st.lists(st.floats(width=32)))
def test_single_floats_come_back_as_they_were(values: list[float]) -> None:
    found = unpack_floats(pack_floats(values), "FP32")
    assert len(found) == len(values)
    assert all(
        one == other or (math.isnan(one) and math.isnan(other)) for one, other in zip(found, values, strict=True)
    )


@given(st.lists(st.floats(allow_nan=False)))
def test_double_floats_are_read_little_endian(values: list[float]) -> None:
    assert unpack_floats(b"".join(struct.pack("<d", value) for value in values), "FP64") == values


@pytest.mark.parametrize(
    ("raw", "datatype"),
    [(b"\0" * 3, "FP32"), (b"\0" * 4, "FP64"), (b"\0" * 4, "FP16"), (b"\0" * 4, "INT32"), (b"", "")],
)
def test_what_is_no_whole_tensor_of_floats_is_refused(raw: bytes, datatype: str) -> None:
    with refused(InvalidRequest):
        unpack_floats(raw, datatype)
