from __future__ import annotations

import pytest

from training.data import OUT_OF_SCOPE, DataSet, Example
from training.errors import BadData


def rows(label: str, count: int) -> tuple[Example, ...]:
    return tuple(Example(f"{label} {number}", label) for number in range(count))


def data_set(
    train: tuple[Example, ...], validation: tuple[Example, ...] = (), test: tuple[Example, ...] = ()
) -> DataSet:
    return DataSet(train, validation, test, ())


def test_labels_are_sorted() -> None:
    assert data_set(rows("b", 2) + rows("a", 1)).labels == ("a", "b")


def test_keeping_labels_keeps_them_in_every_split() -> None:
    everything = rows("a", 2) + rows("b", 2) + rows("c", 2)
    kept = data_set(everything, everything, everything).keeping({"a", "c"})
    assert kept.train == kept.validation == kept.test == rows("a", 2) + rows("c", 2)


def test_a_label_that_no_row_has_cannot_be_kept() -> None:
    with pytest.raises(BadData, match="no training row has the label 'z'"):
        data_set(rows("a", 2)).keeping({"a", "z"})


def test_out_of_scope_rows_can_be_left_out_of_every_split() -> None:
    everything = rows("a", 2) + rows(OUT_OF_SCOPE, 2)
    left = data_set(everything, everything, everything).without(OUT_OF_SCOPE)
    assert left.train == left.validation == left.test == rows("a", 2)


def test_a_validation_split_takes_its_share_of_each_label() -> None:
    train = rows("a", 20) + rows("b", 10) + rows("c", 1)
    split = data_set(train).with_validation(0.2, seed=0)
    assert [row.label for row in split.validation] == ["a"] * 4 + ["b"] * 2
    assert set(split.train) | set(split.validation) == set(train)
    assert not set(split.train) & set(split.validation)


def test_the_seed_decides_the_validation_split() -> None:
    data = data_set(rows("a", 50))
    assert data.with_validation(0.2, seed=1) == data.with_validation(0.2, seed=1)
    assert data.with_validation(0.2, seed=1) != data.with_validation(0.2, seed=2)


def test_a_validation_split_that_is_there_is_kept() -> None:
    data = data_set(rows("a", 5), validation=rows("a", 2))
    assert data.with_validation(0.5, seed=0) is data


def test_no_copy_of_a_training_row_is_validated_on() -> None:
    split = data_set(rows("a", 10) * 3).with_validation(0.5, seed=0)
    assert (len(split.train), len(split.validation)) == (5, 5)
    assert not set(split.train) & set(split.validation)


def test_too_few_rows_cannot_be_split() -> None:
    with pytest.raises(BadData, match="too few rows"):
        data_set(rows("a", 1) + rows("b", 1)).with_validation(0.5, seed=0)


def test_few_rows_are_not_divided_but_for_a_share_that_is_asked_for() -> None:
    data = data_set(rows("a", 40) + rows("b", 39) + rows("b", 1))
    assert data.divided(None, seed=0) == data_set(rows("a", 40) + rows("b", 39))
    assert len(data.divided(0.2, seed=0).validation) == 16


def test_many_rows_are_divided_and_a_split_that_is_there_is_kept() -> None:
    split = data_set(rows("a", 2_000)).divided(None, seed=0)
    assert (len(split.train), len(split.validation)) == (1_800, 200)
    data = data_set(rows("a", 5), validation=rows("a", 2))
    assert data.divided(None, seed=0) is data


def test_one_label_makes_no_classifier() -> None:
    with pytest.raises(BadData, match="have 1 label; a classifier needs at least two"):
        data_set(rows("a", 3)).check()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_is_tested_must_be_trained(split: str) -> None:
    train, other = rows("a", 2) + rows("b", 2), rows("c", 1)
    data = data_set(train, validation=other) if split == "validation" else data_set(train, test=other)
    with pytest.raises(BadData, match="the label 'c' has rows for testing"):
        data.check()
