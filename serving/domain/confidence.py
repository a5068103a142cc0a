"""Confidence in answers: a temperature that turns scores into probabilities, and a minimum for the best score."""

from __future__ import annotations

from typing import Final

from pydantic import ConfigDict, Field

from serving.domain.bounded import Part
from serving.domain.prediction import Fallback, ScoredLabel

FALLBACK_LABEL: Final = "oos"
"""Label of documents that belong to no intent, as named in CLINC150."""


class Confidence(Part):
    """A manifest's settings for the scores of its model."""

    model_config = ConfigDict(allow_inf_nan=False)

    temperature: float = Field(default=1.0, ge=1e-3, le=1e3)
    """Divisor of the logits before softmax (Guo et al., "On Calibration of Modern Neural Networks", 2017)."""
    threshold: float = Field(default=0.0, ge=0.0, le=1.0)
    """Minimum score of an answer."""
    fallback: str = Field(default=FALLBACK_LABEL, min_length=1, max_length=1024)
    """Label of the answer if the best label's score is below the threshold."""

    def fallback_of(self, label: str, score: float, threshold: float | None) -> Fallback | None:
        """Return the answer that the fallback label replaces; ``None`` if the best label is the answer.

        Args:
            label: label with the highest score.
            score: score of that label.
            threshold: threshold of the caller; ``None``: that of the manifest.
        """
        least = self.threshold if threshold is None else threshold
        return Fallback(ScoredLabel(label, score), least) if score < least and label != self.fallback else None
