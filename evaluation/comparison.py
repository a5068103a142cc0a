"""Comparison of two models over the same rows: which rows each gets right, and whether the difference is chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from evaluation.answers import Answers
from evaluation.evaluation import Labelled
from evaluation.mcnemar import mcnemar_p_value

SIGNIFICANT: Final = 0.05
"""Bound below which a p-value counts as more than chance."""


class Verdict(Enum):
    """Verdict on the second model, compared with the first."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no significant difference"


class Difference(NamedTuple):
    """A row that the models answer differently."""

    text: str
    label: str
    a: str
    b: str


class LabelTally(NamedTuple):
    """Counts of a label's rows that only one of the two models gets right."""

    label: str
    wins: int
    losses: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of a second model, B, with a first one, A.

    The answers are those that callers get, with the thresholds in force.
    """

    rows: int
    in_scope: int
    agreeing: int
    """Rows that both models answer alike, right or wrong."""
    both_right: int
    wins: int
    """Rows that only B gets right."""
    losses: int
    """Rows that only A gets right."""
    both_wrong: int
    in_scope_right_a: int
    in_scope_right_b: int
    differences: tuple[Difference, ...]
    """Losses first, then wins, then rows that both get wrong; each in the order of the data."""
    labels: tuple[LabelTally, ...]
    """Labels with wins or losses, the largest difference first."""

    @property
    def p_value(self) -> float:
        """P-value of the exact two-sided McNemar test."""
        return mcnemar_p_value(self.wins, self.losses)

    @property
    def verdict(self) -> Verdict:
        """Verdict of the McNemar test."""
        if self.p_value >= SIGNIFICANT:
            return Verdict.NO_DIFFERENCE
        return Verdict.BETTER if self.wins > self.losses else Verdict.WORSE

    @property
    def agreement(self) -> float:
        """Share of rows that both models answer alike."""
        return self.agreeing / self.rows

    @property
    def accuracy_a(self) -> float:
        """Accuracy of A over all rows."""
        return (self.both_right + self.losses) / self.rows

    @property
    def accuracy_b(self) -> float:
        """Accuracy of B over all rows."""
        return (self.both_right + self.wins) / self.rows

    @property
    def accuracy_in_scope_a(self) -> float | None:
        """Accuracy of A over the rows in scope; ``None`` if no row is in scope."""
        return self.in_scope_right_a / self.in_scope if self.in_scope else None

    @property
    def accuracy_in_scope_b(self) -> float | None:
        """Accuracy of B over the rows in scope; ``None`` if no row is in scope."""
        return self.in_scope_right_b / self.in_scope if self.in_scope else None

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison in its JSON form, which docs/evaluation.md describes."""
        return {
            "rows": {"all": self.rows, "in_scope": self.in_scope, "out_of_scope": self.rows - self.in_scope},
            "agreement": self.agreement,
            "both_right": self.both_right,
            "wins": self.wins,
            "losses": self.losses,
            "both_wrong": self.both_wrong,
            "accuracy": {
                "overall": {"a": self.accuracy_a, "b": self.accuracy_b},
                "in_scope": {"a": self.accuracy_in_scope_a, "b": self.accuracy_in_scope_b},
            },
            "mcnemar": {"p_value": self.p_value, "significant_below": SIGNIFICANT, "b_is": self.verdict.value},
            "labels": [each._asdict() for each in self.labels],
            "differences": [each._asdict() for each in self.differences],
        }


def compare(rows: Sequence[Labelled], a: Answers, b: Answers, out_of_scope: Collection[str]) -> Comparison:
    """Return the comparison of ``b`` with ``a``.

    Both hold the answers to ``rows``, of which there is at least one, in the order of the rows.

    Args:
        rows: texts and their labels.
        a: answers of the first model.
        b: answers of the second model.
        out_of_scope: labels that mean out of scope, in addition to the fallback labels of both models. They count as
            one.
    """
    outside = frozenset((*out_of_scope, a.fallback, b.fallback))

    def same(label: str) -> str:
        return b.fallback if label in outside else label

    judged = [
        Difference(row.text, same(row.label), same(of_a.label), same(of_b.label))
        for row, of_a, of_b in zip(rows, a.rows, b.rows, strict=True)
    ]
    right = Counter((row.a == row.label, row.b == row.label) for row in judged)
    inside = [row for row in judged if row.label not in outside]
    return Comparison(
        rows=len(judged),
        in_scope=len(inside),
        agreeing=sum(row.a == row.b for row in judged),
        both_right=right[True, True],
        wins=right[False, True],
        losses=right[True, False],
        both_wrong=right[False, False],
        in_scope_right_a=sum(row.a == row.label for row in inside),
        in_scope_right_b=sum(row.b == row.label for row in inside),
        differences=tuple(sorted((row for row in judged if row.a != row.b), key=_place)),
        labels=_tallies(judged),
    )


def _place(difference: Difference) -> int:
    if difference.a == difference.label:
        return 0
    return 1 if difference.b == difference.label else 2


def _tallies(judged: Sequence[Difference]) -> tuple[LabelTally, ...]:
    wins = Counter(row.label for row in judged if row.a != row.label and row.b == row.label)
    losses = Counter(row.label for row in judged if row.a == row.label and row.b != row.label)
    tallies = (LabelTally(label, wins[label], losses[label]) for label in wins | losses)
    return tuple(sorted(tallies, key=lambda each: (-abs(each.wins - each.losses), each.label)))
