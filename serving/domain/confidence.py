"""When an answer is believed: a temperature that makes scores probabilities, and a threshold below which it is not."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from serving.domain.prediction import Fallback, ScoredLabel

FALLBACK_LABEL: Final = "oos"
"""The label of documents that belong to no intent, as CLINC150 names it."""


class Confidence(BaseModel):
    """What a manifest says of the scores of its model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: float = Field(default=1.0, ge=1e-3, le=1e3)
    """Logits are divided by it before softmax (Guo et al., "On Calibration of Modern Neural Networks", 2017)."""
    threshold: float = Field(default=0.0, ge=0.0, le=1.0)
    """The least score of an answer."""
    fallback: str = Field(default=FALLBACK_LABEL, min_length=1, max_length=1024)
    """The answer where the best label has less."""

    def fallback_of(self, label: str, score: float, threshold: float | None) -> Fallback | None:
        """Return what the fallback label stands in for; ``None`` where the best label is the answer.

        Args:
            label: the one with the highest score.
            score: that score.
            threshold: what the caller asked for instead of the manifest's.
        """
        least = self.threshold if threshold is None else threshold
        return Fallback(ScoredLabel(label, score), least) if score < least and label != self.fallback else None
