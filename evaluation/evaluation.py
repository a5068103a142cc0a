"""Figures of one model over the rows of one split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from evaluation.answers import Answers
from evaluation.metrics import (
    Confusion,
    LabelFigures,
    ReliabilityBin,
    ThresholdPoint,
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

_THRESHOLDS: Final = 101


class Labelled(NamedTuple):
    """A text and its label."""

    text: str
    label: str


class Mistake(NamedTuple):
    """A row whose answer is not its label."""

    text: str
    label: str
    answer: str
    best: str
    score: float
    """Score of the best label."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one model. Shares are from 0 to 1, or ``None`` if there are no rows to take a share of."""

    rows: int
    in_scope: int
    """Rows whose label does not mean out of scope."""
    unknown_labels: Mapping[str, int] | None
    """Number of rows, which count as wrong, for each label that the model lacks; ``None``: not known."""
    accuracy: float
    """Accuracy over all rows, with the threshold in force."""
    accuracy_in_scope: float | None
    """Accuracy in scope with the threshold in force: a row that is answered as out of scope is wrong."""
    accuracy_in_scope_without_threshold: float | None
    """Accuracy of the best labels over the rows in scope."""
    macro_f1: float
    """Macro F1 over all labels that a row has or was given, including the out-of-scope label."""
    out_of_scope_recall: float | None
    out_of_scope_precision: float | None
    answered_out_of_scope: float
    """Share of rows that are answered as out of scope, by the threshold or by a learned class."""
    fallen_back: float
    """Share of rows whose best label was replaced by the fallback label."""
    expected_calibration_error: float | None
    """Error of the best labels over the rows in scope; ``None`` also if the engine returns no probabilities."""
    reliability: tuple[ReliabilityBin, ...]
    threshold_curve: tuple[ThresholdPoint, ...]
    labels: tuple[LabelFigures, ...]
    confusions: tuple[Confusion, ...]
    mistakes: tuple[Mistake, ...]
    """Wrongly answered rows, the most confident first."""

    @property
    def out_of_scope(self) -> int:
        """Number of rows that are out of scope."""
        return self.rows - self.in_scope

    def as_dict(self) -> dict[str, Any]:
        """Return the evaluation in its JSON form, which docs/evaluation.md describes."""
        return {
            "rows": {
                "all": self.rows,
                "in_scope": self.in_scope,
                "out_of_scope": self.out_of_scope,
                "of_unknown_labels": None if self.unknown_labels is None else sum(self.unknown_labels.values()),
            },
            "unknown_labels": None if self.unknown_labels is None else dict(self.unknown_labels),
            "accuracy": {
                "overall": self.accuracy,
                "in_scope": self.accuracy_in_scope,
                "in_scope_without_threshold": self.accuracy_in_scope_without_threshold,
            },
            "macro_f1": self.macro_f1,
            "out_of_scope": {
                "recall": self.out_of_scope_recall,
                "precision": self.out_of_scope_precision,
                "answered": self.answered_out_of_scope,
                "fallen_back": self.fallen_back,
            },
            "calibration": {
                "expected_calibration_error": self.expected_calibration_error,
                "bins": [each._asdict() for each in self.reliability],
            },
            "threshold_curve": [each._asdict() for each in self.threshold_curve],
            "labels": [each._asdict() for each in self.labels],
            "confusions": [each._asdict() for each in self.confusions],
            "mistakes": [each._asdict() for each in self.mistakes],
        }


def evaluate(rows: Sequence[Labelled], answers: Answers, out_of_scope: Collection[str]) -> Evaluation:
    """Return the figures of ``answers``.

    They hold the answers to ``rows``, of which there is at least one, in the order of the rows.

    Args:
        rows: texts and their labels.
        answers: answers of the model to the texts.
        out_of_scope: labels that mean out of scope, in addition to the model's fallback label. They count as one.
    """
    outside = frozenset((*out_of_scope, answers.fallback))

    def same(label: str) -> str:
        return answers.fallback if label in outside else label

    gold = [same(row.label) for row in rows]
    given = [same(answer.label) for answer in answers.rows]
    best = [same(answer.best) for answer in answers.rows]
    scores = [answer.score for answer in answers.rows]
    inside = [index for index, label in enumerate(gold) if label not in outside]
    gold_inside, best_inside = [gold[index] for index in inside], [best[index] for index in inside]
    right = [label == answer for label, answer in zip(gold_inside, best_inside, strict=True)]
    scores_inside = [scores[index] for index in inside]
    is_calibrated = bool(inside) and answers.have_scores
    return Evaluation(
        rows=len(rows),
        in_scope=len(inside),
        unknown_labels=_unknown(gold_inside, answers),
        accuracy=accuracy(gold, given),
        accuracy_in_scope=accuracy(gold_inside, [given[index] for index in inside]) if inside else None,
        accuracy_in_scope_without_threshold=accuracy(gold_inside, best_inside) if inside else None,
        macro_f1=macro_f1(gold, given),
        out_of_scope_recall=out_of_scope_recall(gold, given, outside),
        out_of_scope_precision=out_of_scope_precision(gold, given, outside),
        answered_out_of_scope=sum(label in outside for label in given) / len(rows),
        fallen_back=sum(answer.fell_back for answer in answers.rows) / len(rows),
        expected_calibration_error=expected_calibration_error(scores_inside, right) if is_calibrated else None,
        reliability=reliability(scores_inside, right) if is_calibrated else (),
        threshold_curve=(
            threshold_curve(gold, best, scores, np.linspace(0.0, 1.0, _THRESHOLDS), outside)
            if answers.have_scores
            else ()
        ),
        labels=label_figures(gold, given),
        confusions=confusions(gold, given),
        mistakes=_mistakes(rows, gold, given, answers),
    )


def _unknown(labels: Sequence[str], answers: Answers) -> dict[str, int] | None:
    known = answers.labels
    if known is None:
        return None
    return dict(sorted(Counter(label for label in labels if label not in known).items()))


def _mistakes(
    rows: Sequence[Labelled], gold: Sequence[str], given: Sequence[str], answers: Answers
) -> tuple[Mistake, ...]:
    mistakes = (
        Mistake(row.text, label, given_label, answer.best, answer.score)
        for row, label, given_label, answer in zip(rows, gold, given, answers.rows, strict=True)
        if label != given_label
    )
    return tuple(sorted(mistakes, key=lambda mistake: -mistake.score))
