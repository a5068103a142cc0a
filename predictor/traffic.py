"""Counts what models were asked and what they answered."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

from serving.traffic import CONFIDENCE_BINS, Traffic, confidence_bin


class Answered(NamedTuple):
    """What is counted of one answer."""

    tokens: int
    """Of the document, n-grams left out."""
    unknown_tokens: int
    is_empty: bool
    """Whether the model knows no token of it."""
    winner: int
    """The class with the highest score."""
    score: float
    fell_back: bool


class TrafficCounter:
    """Counts over one copy of a model. Safe to use from several threads.

    Args:
        labels: of the model, in the order of its outputs.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._lock = threading.Lock()
        self._documents = self._empty = self._tokens = self._unknown = self._fallbacks = 0
        self._confidence = [0] * CONFIDENCE_BINS
        self._winners = [0] * len(labels)

    def count(self, answers: Sequence[Answered]) -> None:
        """Count ``answers``."""
        with self._lock:
            self._documents += len(answers)
            for tokens, unknown, is_empty, winner, score, fell_back in answers:
                self._tokens += tokens
                self._unknown += unknown
                self._empty += is_empty
                self._fallbacks += fell_back
                self._confidence[confidence_bin(score)] += 1
                self._winners[winner] += 1

    def snapshot(self) -> Traffic:
        """Return what was counted until now."""
        with self._lock:
            winners = [*self._winners]
            counted = Traffic(
                documents=self._documents,
                empty_documents=self._empty,
                tokens=self._tokens,
                unknown_tokens=self._unknown,
                fallbacks=self._fallbacks,
                confidence=tuple(self._confidence),
            )
        labels: dict[str, int] = {}
        for label, count in zip(self._labels, winners, strict=True):
            # Two outputs may have one label.
            if count:
                labels[label] = labels.get(label, 0) + count
        return counted.model_copy(update={"labels": labels})
