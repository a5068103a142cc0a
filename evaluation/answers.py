"""Answers of a model to the texts that it is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

from serving.domain.prediction import Prediction


class Answer(NamedTuple):
    """Answer to one text."""

    label: str
    """Label that a caller gets with the threshold in force."""
    best: str
    """Label with the highest score; differs from ``label`` if the model fell back."""
    score: float
    """Score of the best label, from 0 to 1; 0 from engines that return no scores."""
    fell_back: bool

    @classmethod
    def of(cls, prediction: Prediction) -> Self:
        """Return the parts of a prediction that an evaluation uses."""
        fallback = prediction.fallback
        if fallback is None:
            return cls(prediction.label, prediction.label, prediction.score, fell_back=False)
        return cls(prediction.label, fallback.best.label, fallback.best.score, fell_back=True)


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of one model to all texts, in the order of the texts."""

    model_id: str
    model_version: str
    labels: frozenset[str] | None
    """Labels that the model can answer with; ``None`` if its engine does not list them."""
    fallback: str
    """Label that the model falls back to."""
    threshold: float | None
    """Threshold in force; ``None`` if a frontend answered and no row fell back, and for pipelines."""
    rows: tuple[Answer, ...]

    @property
    def have_scores(self) -> bool:
        """Whether the scores can be probabilities; an engine that returns no scores gives 0 for every row."""
        return all(0.0 <= row.score <= 1.0 for row in self.rows) and any(row.score for row in self.rows)
