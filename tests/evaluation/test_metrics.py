from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics import (
    accuracy,
    confusions,
    expected_calibration_error,
    label_figures,
    macro_f1,
    out_of_scope_precision,
    out_of_scope_recall,
    reliability,
    threshold_curve,
)
from serving.domain.confidence import Confidence

LABELS = st.sampled_from(["a", "b", "c", "a\0", "", "oos"])
PAIRS = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=60)
# Some scores lie exactly on the edges of bins.
SCORES = st.one_of(
    st.floats(0, 1), st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0]), st.integers(0, 15).map(lambda n: n / 15)
)
SCORED = st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=60)
ANSWERED = st.lists(st.tuples(LABELS, LABELS, SCORES), min_size=1, max_size=60)


def columns(rows: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [row[0] for row in rows], [row[1] for row in rows]


@given(PAIRS)
def test_accuracy_is_the_share_of_equal_pairs(rows: list[tuple[str, str]]) -> None:
    assert accuracy(*columns(rows)) == len([row for row in rows if row[0] == row[1]]) / len(rows)


@given(PAIRS)
def test_the_figures_of_a_label_are_those_of_its_definition(rows: list[tuple[str, str]]) -> None:
    figures = label_figures(*columns(rows))
    assert [each.label for each in figures] == sorted({label for row in rows for label in row})
    for label, support, precision, recall, f1 in figures:
        true_positives = rows.count((label, label))
        false_negatives = len([gold for gold, answer in rows if gold == label != answer])
        false_positives = len([gold for gold, answer in rows if answer == label != gold])
        assert support == true_positives + false_negatives
        assert recall == (true_positives / support if support else 0)
        given_it = true_positives + false_positives
        assert precision == (true_positives / given_it if given_it else 0)
        harmonic = 2 / (1 / precision + 1 / recall) if true_positives else 0
        assert f1 == pytest.approx(harmonic)
    assert macro_f1(*columns(rows)) == pytest.approx(sum(each.f1 for each in figures) / len(figures))


@given(PAIRS, st.randoms())
def test_the_order_of_the_rows_does_not_matter(rows: list[tuple[str, str]], random: np.random.Generator) -> None:
    shuffled = [*rows]
    random.shuffle(shuffled)
    assert label_figures(*columns(rows)) == label_figures(*columns(shuffled))
    assert confusions(*columns(rows)) == confusions(*columns(shuffled))


@given(PAIRS, st.sets(LABELS))
def test_recall_and_precision_of_out_of_scope_count_all_its_labels_as_one(
    rows: list[tuple[str, str]], outside: set[str]
) -> None:
    is_outside = [gold in outside for gold, _ in rows]
    answered = [answer in outside for _, answer in rows]
    both = sum(a and b for a, b in zip(is_outside, answered, strict=True))
    recall = out_of_scope_recall(*columns(rows), outside)
    precision = out_of_scope_precision(*columns(rows), outside)
    assert recall == (both / sum(is_outside) if any(is_outside) else None)
    assert precision == (both / sum(answered) if any(answered) else None)


@given(PAIRS)
def test_confusions_are_every_mistake_the_most_frequent_first(rows: list[tuple[str, str]]) -> None:
    found = confusions(*columns(rows))
    assert sum(each.rows for each in found) == len([row for row in rows if row[0] != row[1]])
    assert all(rows.count((each.label, each.answer)) == each.rows for each in found)
    assert all((-one.rows, one.label) <= (-other.rows, other.label) for one, other in pairwise(found))


def calibration_error_by_definition(rows: Sequence[tuple[float, bool]], bins: int) -> float:
    """Return the sum over bins of |accuracy - confidence|, each weighted by its share of the rows."""
    total = Fraction(0)
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = [row for row in rows if low < row[0] <= high or (number == 0 and row[0] == 0)]
        if inside:
            right = Fraction(sum(row[1] for row in inside), len(inside))
            confidence = sum((Fraction(row[0]) for row in inside), Fraction(0)) / len(inside)
            total += Fraction(len(inside), len(rows)) * abs(right - confidence)
    return float(total)


@given(SCORED, st.integers(1, 30))
def test_the_calibration_error_is_that_of_its_definition(rows: list[tuple[float, bool]], bins: int) -> None:
    confidences, right = [row[0] for row in rows], [row[1] for row in rows]
    error = expected_calibration_error(confidences, right, bins)
    assert error == pytest.approx(calibration_error_by_definition(rows, bins), abs=1e-12)
    assert 0 <= error <= 1
    assert expected_calibration_error(np.array(confidences), np.array(right), bins) == error


@given(SCORED, st.integers(1, 30))
def test_each_row_is_in_the_one_bin_of_its_confidence(rows: list[tuple[float, bool]], bins: int) -> None:
    found = reliability([row[0] for row in rows], [row[1] for row in rows], bins)
    assert [each.low for each in found] == [number / bins for number in range(bins)]
    assert [each.high for each in found] == [(number + 1) / bins for number in range(bins)]
    assert sum(each.rows for each in found) == len(rows)
    assert sum(each.rows * each.accuracy for each in found) == pytest.approx(sum(row[1] for row in rows))
    for each in found:
        if each.rows:
            assert each.low - 1e-12 <= each.confidence <= each.high + 1e-12


def test_a_calibration_error_that_can_be_told_by_head() -> None:
    # Confidence 0.9, and all rows right; confidence 0.3, and none right.
    assert expected_calibration_error([0.9, 0.9, 0.3, 0.3], [True, True, False, False]) == pytest.approx(0.2)
    assert expected_calibration_error([0.75] * 4, [True, True, True, False]) == 0


@given(ANSWERED, st.lists(SCORES, max_size=8))
def test_a_threshold_leads_to_what_the_product_answers_with_it(
    rows: list[tuple[str, str, float]], thresholds: list[float]
) -> None:
    curve = threshold_curve([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows], thresholds)
    for threshold, point in zip(thresholds, curve, strict=True):
        confidence = Confidence(threshold=threshold, fallback="oos")
        answers = [
            best if confidence.fallback_of(best, score, None) is None else confidence.fallback
            for _, best, score in rows
        ]
        inside = [(row[0], answer) for row, answer in zip(rows, answers, strict=True) if row[0] != "oos"]
        outside = [answer for row, answer in zip(rows, answers, strict=True) if row[0] == "oos"]
        right = [gold == answer for gold, answer in inside]
        assert point.threshold == threshold
        assert point.in_scope_accuracy == (sum(right) / len(right) if right else None)
        assert point.out_of_scope_recall == (outside.count("oos") / len(outside) if outside else None)


@given(ANSWERED)
def test_a_higher_threshold_never_finds_fewer_out_of_scope_and_never_answers_more_right(
    rows: list[tuple[str, str, float]],
) -> None:
    thresholds = np.linspace(0, 1, 21)
    curve = threshold_curve([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows], thresholds)
    for lower, higher in pairwise(curve):
        assert (lower.in_scope_accuracy or 0) >= (higher.in_scope_accuracy or 0)
        assert (lower.out_of_scope_recall or 0) <= (higher.out_of_scope_recall or 0)


@pytest.mark.parametrize("confidence", [-0.1, 1.1, math.nan, math.inf])
def test_a_confidence_that_is_no_probability_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        expected_calibration_error([0.5, confidence], [True, True])


def test_figures_of_nothing_and_of_columns_that_differ_are_refused() -> None:
    for figures in (accuracy, label_figures, macro_f1):
        with pytest.raises(ValueError, match="no rows"):
            figures([], [])
        with pytest.raises(ValueError, match="1 and 2 rows"):
            figures(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="no rows"):
        expected_calibration_error([], [])
    with pytest.raises(ValueError, match="1 and 2 rows"):
        expected_calibration_error([0.5], [True, False])
