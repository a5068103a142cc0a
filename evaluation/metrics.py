"""Figures of a classifier that may answer "out of scope": pure functions over labels, answers and confidences.

Rows are given as sequences of one length: ``gold`` is the label of each, ``answers`` what was answered, ``best`` the
label with the highest score whatever the threshold, ``confidences`` that score. Shares and scores are from 0 to 1.
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
"""As many as Guo et al. take."""

OUT_OF_SCOPE: Final = frozenset({FALLBACK_LABEL})

Confidences: TypeAlias = Sequence[float] | npt.NDArray[np.floating[Any]]
Rights: TypeAlias = Sequence[bool] | npt.NDArray[np.bool_]
"""Of each row, whether the answer is right."""


class LabelFigures(NamedTuple):
    """How one label is told from the others; a share of nothing is 0."""

    label: str
    support: int
    """Rows that have it."""
    precision: float
    """Of the rows that were given it, the share that have it."""
    recall: float
    """Of the rows that have it, the share that were given it."""
    f1: float
    """The harmonic mean of both."""


class Confusion(NamedTuple):
    """A mistake and how often it was made."""

    label: str
    answer: str
    rows: int


class ReliabilityBin(NamedTuple):
    """The rows whose confidence is in ``(low, high]``; 0 itself belongs to the first bin."""

    low: float
    high: float
    rows: int
    confidence: float
    """The mean; 0 where there are no rows."""
    accuracy: float
    """0 where there are no rows."""


class ThresholdPoint(NamedTuple):
    """What a threshold would lead to."""

    threshold: float
    in_scope_accuracy: float | None
    """Rows in scope that are answered with their label; ``None`` where there are no such rows."""
    out_of_scope_recall: float | None
    """Rows out of scope that are answered so; ``None`` where there are no such rows."""


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
    """Return the mean F1 over the labels that a row has or was given, each counted alike.

    Raises:
        ValueError: there are no rows, or the sequences differ in length.
    """
    figures = label_figures(gold, answers)
    return sum(each.f1 for each in figures) / len(figures)


def out_of_scope_recall(
    gold: Sequence[str], answers: Sequence[str], out_of_scope: Collection[str] = OUT_OF_SCOPE
) -> float | None:
    """Return the share of rows out of scope that are answered so; ``None`` where there are no such rows.

    Args:
        gold: of each row, the label.
        answers: of each row, what was answered.
        out_of_scope: the labels that mean it.

    Raises:
        ValueError: the sequences differ in length.
    """
    both, rows, _ = _scopes(gold, answers, out_of_scope)
    return _share(both, rows)


def out_of_scope_precision(
    gold: Sequence[str], answers: Sequence[str], out_of_scope: Collection[str] = OUT_OF_SCOPE
) -> float | None:
    """Return the share that are out of scope of the rows answered so; ``None`` where no row is answered so.

    Raises as :func:`out_of_scope_recall`.
    """
    both, _, answered = _scopes(gold, answers, out_of_scope)
    return _share(both, answered)


def confusions(gold: Sequence[str], answers: Sequence[str]) -> tuple[Confusion, ...]:
    """Return every mistake that was made, the most frequent first, those of one frequency by their labels.

    Raises:
        ValueError: the sequences differ in length.
    """
    mistakes = Counter(pair for pair in zip(gold, answers, strict=True) if pair[0] != pair[1])
    return tuple(
        Confusion(label, answer, rows)
        for (label, answer), rows in sorted(mistakes.items(), key=lambda item: (-item[1], item[0]))
    )


def reliability(confidences: Confidences, right: Rights, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Return bins of equal width over the confidences from 0 to 1: what a reliability diagram shows.

    Raises:
        ValueError: there are no rows, the sequences differ in length, or a confidence is not from 0 to 1.
    """
    _check(confidences, right)
    scores = np.asarray(confidences, dtype=np.float64)
    # NaN is not from 0 to 1 either.
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
    """Return by how much confidence and accuracy differ: the mean over bins of equal width, weighted by their rows.

    Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015, in the form of Guo et al.,
    "On Calibration of Modern Neural Networks", 2017. Raises as :func:`reliability`.
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
    """Return what each threshold would lead to.

    A row is answered as out of scope where its confidence is below the threshold, or its best label means it anyway. A
    row in scope that is answered so is wrong.

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
    """Return how many rows are out of scope and answered so, are out of scope, and are answered so."""
    pairs = [(label in out_of_scope, answer in out_of_scope) for label, answer in zip(gold, answers, strict=True)]
    is_out = sum(outside for outside, _ in pairs)
    answered = sum(answer for _, answer in pairs)
    return sum(outside and answer for outside, answer in pairs), is_out, answered


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _check(first: Collection[Any], second: Collection[Any]) -> None:
    if len(first) != len(second):
        raise ValueError(f"there are {len(first)} and {len(second)} rows; they must be the same")
    if not len(first):
        raise ValueError("there are no rows")
