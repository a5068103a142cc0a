"""Counts of a model's queries and answers, without the text of any document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field, field_validator

from serving.domain.bounded import Part, at_most

CONFIDENCE_BINS: Final = 20
"""Number of bins of equal width for scores from 0 to 1."""

Count = Annotated[int, Field(ge=0, strict=True)]


class AnswerCounts(Part):
    """Counts over the documents sent to a model."""

    documents: Count = 0
    empty_documents: Count = 0
    """Documents without any token that the model knows."""
    tokens: Count = 0
    """Tokens of all documents, without n-grams."""
    unknown_tokens: Count = 0
    """Tokens that are not in the vocabulary."""
    fallbacks: Count = 0
    """Answers whose best label was below the threshold."""
    confidence: Annotated[tuple[Count, ...], at_most(CONFIDENCE_BINS)] = (0,) * CONFIDENCE_BINS
    """Number of best labels with a score in each bin."""
    labels: Mapping[str, Count] = Field(default_factory=dict)
    """How often each label was the best one; labels that never were may be left out."""

    @field_validator("labels", mode="before")
    @classmethod
    def _of_counts(cls, value: object) -> object:
        # Checked here too, so that only one of thousands of faults is described.
        if isinstance(value, dict) and any(type(count) is not int or count < 0 for count in value.values()):
            raise ValueError("has labels with something other than a count")
        return value

    @field_validator("confidence")
    @classmethod
    def _of_all_bins(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) != CONFIDENCE_BINS:
            raise ValueError(f"must have {CONFIDENCE_BINS} counts")
        return value

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that are not in the vocabulary; 0 without any tokens."""
        return self.unknown_tokens / self.tokens if self.tokens else 0.0

    @property
    def empty_share(self) -> float:
        """Share of the documents without any token that the model knows; 0 without any documents."""
        return self.empty_documents / self.documents if self.documents else 0.0

    @property
    def fallback_share(self) -> float:
        """Share of the answers whose best label was below the threshold; 0 without any documents."""
        return self.fallbacks / self.documents if self.documents else 0.0
