"""Figures of a classifier that may answer "out of scope": pure functions over labels, answers and confidences.

Rows are given as sequences of equal length: ``gold`` holds the label of each row, ``answers`` the answer, ``best`` the
label with the highest score regardless of the threshold, and ``confidences`` that score. Shares and scores are from 0
to 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import compress
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from serving.domain.confidence import FALLBACK_LABEL

BINS: Final = 15
"""Number of bins, as in Guo et al."""

OUT_OF_SCOPE: Final = frozenset({FALLBACK_LABEL})

Confidences: TypeAlias = Sequence[float] | npt.NDArray[np.floating[Any]]
Rights: TypeAlias = Sequence[bool] | npt.NDArray[np.bool_]
"""Whether the answer to each row is right."""


class LabelFigures(NamedTuple):
    """Figures of one label against all others; a share of no rows is 0."""

    label: str
    support: int
    """Number of rows that have the label."""
    precision: float
    """Share of the rows answered with the label that have it."""
    recall: float
    """Share of the rows with the label that are answered with it."""
    f1: float
    """Harmonic mean of precision and recall."""


class Confusion(NamedTuple):
    """A mistake and its frequency."""

    label: str
    answer: str
    rows: int


class ReliabilityBin(NamedTuple):
    """Rows whose confidence is in ``(low, high]``; the first bin includes 0."""

    low: float
    high: float
    rows: int
    confidence: float
    """Mean confidence of the rows; 0 if there are no rows."""
    accuracy: float
    """Share of the rows that are answered correctly; 0 if there are no rows."""


class ThresholdPoint(NamedTuple):
    """Figures that a threshold would lead to."""

    threshold: float
    in_scope_accuracy: float | None
    """Share of the rows in scope that are answered with their label; ``None`` if no row is in scope."""
    out_of_scope_recall: float | None
    """Share of the rows out of scope that are answered as out of scope; ``None`` if no row is out of scope."""


def accuracy(gold: Sequence[str], answers: Sequence[str]) -> float:
    """Return the share of rows that are answered with their label.

    Raises:
        ValueError: there are no rows, or the sequences differ in length.
    """
    _check(gold, answers)
    return sum(map(str.__eq__, gold, answers)) / len(gold)


def label_figures(gold: Sequence[str], answers: Sequence[str]) -> tuple[LabelFigures, ...]:
    """Return the figures of each label that a row has or was given, sorted by label.

    Raises:
        ValueError: there are no rows, or the sequences differ in length.
    """
    _check(gold, answers)
    support, given = Counter(gold), Counter(answers)
    right = Counter(compress(gold, map(str.__eq__, gold, answers)))
    return tuple(
        LabelFigures(
            label,
            support[label],
            _share(right[label], given[label]) or 0.0,
            _share(right[label], support[label]) or 0.0,
            2 * right[label] / (support[label] + given[label]),
        )
        for label in sorted(support | given)
    )


def macro_f1(gold: Sequence[str], answers: Sequence[str]) -> float:
    """Return the mean F1 over the labels that a row has or was given, each with equal weight.

    Raises:
        ValueError: there are no rows, or the sequences differ in length.
    """
    figures = label_figures(gold, answers)
    return sum(each.f1 for each in figures) / len(figures)


def out_of_scope_recall(
    gold: Sequence[str], answers: Sequence[str], out_of_scope: Collection[str] = OUT_OF_SCOPE
) -> float | None:
    """Return the share of rows out of scope that are answered so; ``None`` if no row is out of scope.

    Args:
        gold: label of each row.
        answers: answer to each row.
        out_of_scope: labels that mean out of scope.

    Raises:
        ValueError: the sequences differ in length.
    """
    both, rows, _ = _scopes(gold, answers, out_of_scope)
    return _share(both, rows)


def out_of_scope_precision(
    gold: Sequence[str], answers: Sequence[str], out_of_scope: Collection[str] = OUT_OF_SCOPE
) -> float | None:
    """Return the share of rows answered as out of scope that are out of scope; ``None`` if no row is answered so.

    Raises the same errors as :func:`out_of_scope_recall`.
    """
    both, _, answered = _scopes(gold, answers, out_of_scope)
    return _share(both, answered)


def confusions(gold: Sequence[str], answers: Sequence[str]) -> tuple[Confusion, ...]:
    """Return every mistake, the most frequent first; mistakes of equal frequency are sorted by label.

    Raises:
        ValueError: the sequences differ in length.
    """
    mistakes = Counter(pair for pair in zip(gold, answers, strict=True) if pair[0] != pair[1])
    return tuple(
        Confusion(label, answer, rows)
        for (label, answer), rows in sorted(mistakes.items(), key=lambda item: (-item[1], item[0]))
    )


def reliability(confidences: Confidences, right: Rights, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Return the bins of a reliability diagram, of equal width over the confidences from 0 to 1.

    Raises:
        ValueError: there are no rows, the sequences differ in length, or a confidence is not from 0 to 1.
    """
    _check(confidences, right)
    scores = np.asarray(confidences, dtype=np.float64)
    # Written so that NaN fails the check too.
    if not ((scores >= 0.0) & (scores <= 1.0)).all():
        raise ValueError("confidences must be from 0 to 1")
    edges = np.arange(bins + 1) / bins
    places = np.searchsorted(edges[1:-1], scores, side="left")
    rows = np.bincount(places, minlength=bins)
    divisors = np.maximum(rows, 1)
    means = np.bincount(places, weights=scores, minlength=bins) / divisors
    shares = np.bincount(places, weights=np.asarray(right, dtype=np.float64), minlength=bins) / divisors
    columns: Any = (edges[:-1].tolist(), edges[1:].tolist(), rows.tolist(), means.tolist(), shares.tolist())
    return tuple(ReliabilityBin(*each) for each in zip(*columns, strict=True))


def expected_calibration_error(confidences: Confidences, right: Rights, bins: int = BINS) -> float:
    """Return the mean gap between confidence and accuracy over bins of equal width, weighted by their rows.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015, in the form of Guo et
    al., "On Calibration of Modern Neural Networks", 2017. Raises the same errors as :func:`reliability`.
    """
    gaps = (each.rows * abs(each.accuracy - each.confidence) for each in reliability(confidences, right, bins))
    return sum(gaps) / len(right)


def threshold_curve(
    gold: Sequence[str],
    best: Sequence[str],
    confidences: Confidences,
    thresholds: Sequence[float] | npt.NDArray[np.floating[Any]],
    out_of_scope: Collection[str] = OUT_OF_SCOPE,
) -> tuple[ThresholdPoint, ...]:
    """Return the figures that each threshold would lead to.

    A row is answered as out of scope if its confidence is below the threshold or its best label already means out of
    scope. A row in scope that is answered so is wrong.

    Raises:
        ValueError: the sequences differ in length.
    """
    right_scores: list[float] = []
    outside_scores: list[float] = []
    inside = outside = outside_anyway = 0
    for label, answer, score in zip(gold, best, confidences, strict=True):
        if label not in out_of_scope:
            inside += 1
            if label == answer:
                right_scores.append(float(score))
        else:
            outside += 1
            if answer in out_of_scope:
                outside_anyway += 1
            else:
                outside_scores.append(float(score))
    right_below = np.searchsorted(np.sort(right_scores), thresholds, side="left")
    outside_below = np.searchsorted(np.sort(outside_scores), thresholds, side="left")
    return tuple(
        ThresholdPoint(
            float(threshold),
            _share(len(right_scores) - int(lost), inside),
            _share(outside_anyway + int(found), outside),
        )
        for threshold, lost, found in zip(thresholds, right_below, outside_below, strict=True)
    )


def _scopes(gold: Sequence[str], answers: Sequence[str], out_of_scope: Collection[str]) -> tuple[int, int, int]:
    """Return the numbers of rows that are out of scope and answered so, are out of scope, and are answered so."""
    pairs = [(label in out_of_scope, answer in out_of_scope) for label, answer in zip(gold, answers, strict=True)]
    is_out = sum(outside for outside, _ in pairs)
    answered = sum(answer for _, answer in pairs)
    return sum(outside and answer for outside, answer in pairs), is_out, answered


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _check(first: Collection[Any], second: Collection[Any]) -> None:
    if len(first) != len(second):
        raise ValueError(f"there are {len(first)} and {len(second)} rows; the numbers must be the same")
    if not len(first):
        raise ValueError("there are no rows")
