"""What a model was asked and what it answered, in counts: nothing of any document's text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

CONFIDENCE_BINS: Final = 20
"""Bins of equal width that scores from 0 to 1 are counted in."""

Count = Annotated[int, Field(ge=0, strict=True)]


class AnswerCounts(BaseModel):
    """Counts over documents that a model was asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: Count = 0
    empty_documents: Count = 0
    """Those without any token that the model knows."""
    tokens: Count = 0
    """Of all documents, n-grams left out."""
    unknown_tokens: Count = 0
    """Those of them that the vocabulary does not have."""
    fallbacks: Count = 0
    """Answers whose best label was below the threshold."""
    confidence: tuple[Count, ...] = (0,) * CONFIDENCE_BINS
    """How many best labels had a score in each bin."""
    labels: Mapping[str, Count] = Field(default_factory=dict)
    """How often each label was the best one; those that never were may be left out."""

    @field_validator("confidence")
    @classmethod
    def _of_all_bins(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) != CONFIDENCE_BINS:
            raise ValueError(f"must have {CONFIDENCE_BINS} counts")
        return value

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that the vocabulary does not have; 0 where there are none."""
        return self.unknown_tokens / self.tokens if self.tokens else 0.0

    @property
    def empty_share(self) -> float:
        """Share of the documents of which the model knows no token; 0 where there are none."""
        return self.empty_documents / self.documents if self.documents else 0.0

    @property
    def fallback_share(self) -> float:
        """Share of the answers whose best label was below the threshold; 0 where there are none."""
        return self.fallbacks / self.documents if self.documents else 0.0
