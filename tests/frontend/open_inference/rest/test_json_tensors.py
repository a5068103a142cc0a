from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.open_inference.rest.json_tensors import elements_of, raw_of
from serving.domain.errors import InvalidRequest
from serving.wire.raw_tensors import pack_bytes

ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "BYTES": st.text(),
    **{f"INT{bits}": st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": st.floats(width=bits, allow_nan=False, allow_infinity=False) for bits in (16, 32, 64)},
}


def nested(elements: list[Any], shape: list[int]) -> list[Any]:
    if len(shape) < 2:
        return elements
    size = math.prod(shape[1:])
    return [nested(elements[row * size : (row + 1) * size], shape[1:]) for row in range(shape[0])]


@given(st.data(), st.sampled_from(sorted(ELEMENTS)), st.lists(st.integers(1, 3), max_size=3))
def test_elements_come_back_from_the_raw_form_flat_or_nested(
    data: st.DataObject, datatype: str, shape: list[int]
) -> None:
    count = math.prod(shape)
    elements = data.draw(st.lists(ELEMENTS[datatype], min_size=count, max_size=count))
    flat = raw_of(elements, datatype, shape)
    assert raw_of(nested(elements, shape), datatype, shape) == flat
    assert elements_of(flat, datatype) == elements


@pytest.mark.parametrize(
    ("data", "datatype", "shape"),
    [
        ([1, 2], "INT32", [3]), ([1, 2], "INT32", []), ([], "INT32", [1]), ([[]], "INT32", [1, 1]),
        ([[1], 2], "INT32", [2, 1]),
        ([True], "INT32", [1]), ([1], "BOOL", [1]), ([1.0], "INT32", [1]), ([True], "FP32", [1]), (["1"], "FP32", [1]),
        ([1], "BYTES", [1]), ([None], "BYTES", [1]), ([[["a"]]], "BYTES", [1, 1]),
        ([128], "INT8", [1]), ([-1], "UINT8", [1]), ([1e39], "FP32", [1]), ([70_000.0], "FP16", [1]),
        ([10**400], "FP64", [1]),
        ([1.0], "BF16", [1]), ([1], "int32", [1]),
    ],
    ids=str,
)  # fmt: skip
def test_data_that_are_not_what_the_tensor_says_are_refused(data: list[Any], datatype: str, shape: list[int]) -> None:
    with pytest.raises(InvalidRequest):
        raw_of(data, datatype, shape)


@pytest.mark.parametrize(
    ("data", "shape"), [([], [0]), ([], [0, 5]), ([[], []], [2, 0]), (["a"], []), (["a"], [1, 1, 1])]
)
def test_sizes_of_0_and_1_are_sizes(data: list[Any], shape: list[int]) -> None:
    assert raw_of(data, "BYTES", shape) in (b"", pack_bytes([b"a"]))


def test_bytes_that_are_no_text_are_to_be_asked_for_as_binary_data() -> None:
    with pytest.raises(InvalidRequest, match="binary_data"):
        elements_of(pack_bytes([b"\xff"]), "BYTES")
