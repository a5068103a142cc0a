"""Counts the queries of models and their answers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import add

from serving.domain.answer_counts import CONFIDENCE_BINS, AnswerCounts


@dataclass(slots=True)
class TrafficTotals:
    """Sums over models, which only grow."""

    documents: int = 0
    empty_documents: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    fallbacks: int = 0
    confidence: list[int] = field(default_factory=lambda: [0] * CONFIDENCE_BINS)
    """Number of best labels with a score in each bin."""
    scores: float = 0.0
    """Sum of the scores of all best labels."""

    def copy(self) -> TrafficTotals:
        """Return a copy of the sums that can be added to."""
        return replace(self, confidence=[*self.confidence])


class TrafficCounter:
    """Counter of one copy of a model. Safe to use from several threads.

    Args:
        labels: labels of the model, in the order of its outputs.
    """

    __slots__ = (
        "_confidence",
        "_empty",
        "_ended",
        "_fallbacks",
        "_labels",
        "_lock",
        "_scores",
        "_tokens",
        "_unknown",
        "_winners",
    )

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._lock = threading.Lock()
        self._ended = False
        self._empty = self._tokens = self._unknown = self._fallbacks = 0
        self._scores = 0.0
        # One bin more than is reported: scores of exactly 1 have their own bin here and are reported in the last one.
        self._confidence = [0] * (CONFIDENCE_BINS + 1)
        self._winners = [0] * len(labels)

    def count(
        self, tokens: int, unknown_tokens: int, winner: int, score: float, *, is_empty: bool, fell_back: bool
    ) -> None:
        """Count one answer. Every answer pays for this method, so it does as little as possible.

        Args:
            tokens: number of tokens of the document, without n-grams.
            unknown_tokens: number of these tokens that the vocabulary lacks.
            winner: the class with the highest score.
            score: that score, from 0 to 1.
            is_empty: whether the model knows no token of the document.
            fell_back: whether the score was below the threshold.
        """
        with self._lock:
            if self._ended:
                return
            self._tokens += tokens
            self._confidence[int(score * CONFIDENCE_BINS)] += 1
            self._winners[winner] += 1
            self._scores += score
            if unknown_tokens:
                self._unknown += unknown_tokens
            if is_empty:
                self._empty += 1
            if fell_back:
                self._fallbacks += 1

    @property
    def documents(self) -> int:
        """Number of answers counted so far."""
        return sum(self._confidence)

    def end(self) -> None:
        """Stop counting, so that the counts no longer change: answers that are still under way are left out."""
        with self._lock:
            self._ended = True

    def add_to(self, totals: TrafficTotals) -> None:
        """Add the counts so far to ``totals``."""
        with self._lock:
            confidence = self._confidence_buckets()
            totals.documents += sum(confidence)
            totals.empty_documents += self._empty
            totals.tokens += self._tokens
            totals.unknown_tokens += self._unknown
            totals.fallbacks += self._fallbacks
            totals.scores += self._scores
        totals.confidence = [*map(add, totals.confidence, confidence)]

    def snapshot(self) -> AnswerCounts:
        """Return the counts so far."""
        return self.snapshot_with_scores()[0]

    def snapshot_with_scores(self) -> tuple[AnswerCounts, float]:
        """Return the counts so far, and the sum of the scores of all best labels."""
        with self._lock:
            confidence, winners, scores = self._confidence_buckets(), [*self._winners], self._scores
            empty, tokens, unknown, fallbacks = self._empty, self._tokens, self._unknown, self._fallbacks
        labels: dict[str, int] = {}
        for label, count in zip(self._labels, winners, strict=True):
            # Two outputs may share a label.
            if count:
                labels[label] = labels.get(label, 0) + count
        traffic = AnswerCounts(
            documents=sum(confidence),
            empty_documents=empty,
            tokens=tokens,
            unknown_tokens=unknown,
            fallbacks=fallbacks,
            confidence=tuple(confidence),
            labels=labels,
        )
        return traffic, scores

    def _confidence_buckets(self) -> list[int]:
        *confidence, of_exactly_one = self._confidence
        confidence[-1] += of_exactly_one
        return confidence
