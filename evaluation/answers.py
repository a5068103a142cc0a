"""What a model answered to the texts that it is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

from serving.domain.prediction import Prediction


class Answer(NamedTuple):
    """To one text."""

    label: str
    """What a caller gets, with the threshold in force."""
    best: str
    """The label with the highest score; another than ``label`` where the model fell back."""
    score: float
    """Of the best label, from 0 to 1; 0 from engines that tell none."""
    fell_back: bool

    @classmethod
    def of(cls, prediction: Prediction) -> Self:
        """Return what is looked at of a prediction."""
        fallback = prediction.fallback
        if fallback is None:
            return cls(prediction.label, prediction.label, prediction.score, fell_back=False)
        return cls(prediction.label, fallback.best.label, fallback.best.score, fell_back=True)


@dataclass(frozen=True, slots=True)
class Answers:
    """Of one model to all texts, in their order."""

    model_id: str
    model_version: str
    labels: frozenset[str] | None
    """Those that the model can answer with; ``None`` where its engine does not tell."""
    fallback: str
    """The label that it falls back to."""
    threshold: float | None
    """What was in force; ``None`` where it is not known, because a frontend was asked and nothing fell back."""
    rows: tuple[Answer, ...]

    @property
    def have_scores(self) -> bool:
        """Whether the scores can be probabilities; an engine that tells none gives 0 to all."""
        return all(0.0 <= row.score <= 1.0 for row in self.rows) and any(row.score for row in self.rows)
