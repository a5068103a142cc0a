from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.cross_validation import PARTS, parts_of
from training.data import Example
from training.errors import BadData


def rows_of(counts: list[int]) -> list[Example]:
    return [
        Example(f"text {number}", f"label {label}") for label, count in enumerate(counts) for number in range(count)
    ]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8).filter(lambda counts: max(counts) > 1), st.integers(0, 99))
def test_every_row_is_in_one_part_and_every_label_is_left_in_all_others(counts: list[int], seed: int) -> None:
    rows = rows_of(counts)
    parts = parts_of(rows, seed)
    held_out = [index for part in parts for index in part]
    alone = {row.label for row in rows if sum(other.label == row.label for other in rows) == 1}
    assert sorted(held_out) == [index for index, row in enumerate(rows) if row.label not in alone]
    assert 1 <= len(parts) <= PARTS
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for part in parts:
        assert {row.label for index, row in enumerate(rows) if index not in part} == {row.label for row in rows}
        assert max(Counter(rows[index].label for index in part).values()) <= max(counts) // PARTS + 1


def test_the_seed_decides_the_parts() -> None:
    rows = rows_of([20, 20])
    assert parts_of(rows, 1) == parts_of(rows, 1)
    assert parts_of(rows, 1) != parts_of(rows, 2)


def test_single_rows_of_each_label_cannot_be_divided() -> None:
    with pytest.raises(BadData, match="no label has two rows"):
        parts_of(rows_of([1, 1, 1]), 0)
