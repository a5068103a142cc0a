"""Drift: how far a model's queries and answers are from those of its validation.

Histograms are compared by the population stability index, the symmetric Kullback-Leibler divergence of two histograms:
``sum((p - q) * ln(p / q))``. Its usual bounds, 0.1 and 0.25, are those of N. Siddiqi, "Credit Risk Scorecards" (2006).
These bounds ignore chance: with many labels and few documents the index is large without any drift. For n and m
documents and B bins, the index without drift is about ``(1/n + 1/m) * chi-squared(B - 1)`` (B. Yurdakul and J. Naranjo,
"Statistical properties of the population stability index", 2020). An index that chance explains is therefore ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from serving.domain.answer_counts import AnswerCounts

FEWEST_DOCUMENTS: Final = 200
"""Minimum number of live documents for a verdict."""
FEWEST_VALIDATED: Final = 50
"""Minimum number of documents in a baseline."""

# Added to each bin, so that a bin that is empty on one side does not make the index infinite (Jeffreys' prior).
_SMOOTHING: Final = 0.5
# Quantile of the normal distribution: without drift, one signal in a thousand exceeds the bound of chance.
_RARE: Final = 3.090


class Verdict(StrEnum):
    """Verdict on a signal."""

    TOO_FEW = "too few documents for a verdict"
    NONE = "none"
    SOME = "some"
    STRONG = "strong"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Smallest changes that count as some drift and as strong drift."""

    some: float
    strong: float


UNKNOWN_TOKENS: Final = Bounds(0.05, 0.15)
"""Bounds on the difference of two shares."""
EMPTY_DOCUMENTS: Final = Bounds(0.02, 0.10)
"""Bounds on the difference of two shares."""
INDEX: Final = Bounds(0.10, 0.25)
"""Bounds on the population stability index."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One compared quantity."""

    name: str
    """``unknown_tokens``, ``empty_documents``, ``confidence`` or ``labels``."""
    change: float
    """Difference of the shares, live minus baseline; for histograms, the population stability index."""
    by_chance: float
    """Bound that the size of the change stays below in 999 of 1,000 cases without drift."""
    verdict: Verdict
    baseline_share: float | None = None
    live_share: float | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """All signals of one model."""

    signals: tuple[Signal, ...]
    documents: int
    """Number of live documents."""
    validated: int
    """Number of documents in the baseline."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def drift_of(live: AnswerCounts, baseline: AnswerCounts) -> Drift:
    """Return the drift of ``live`` from ``baseline``."""
    enough = live.documents >= FEWEST_DOCUMENTS and baseline.documents >= FEWEST_VALIDATED
    confidence = (live.confidence, baseline.confidence)
    labels = _aligned(live.labels, baseline.labels)
    signals = (
        _share_signal(
            "unknown_tokens",
            (live.unknown_tokens, live.tokens),
            (baseline.unknown_tokens, baseline.tokens),
            UNKNOWN_TOKENS,
            enough=enough,
        ),
        _share_signal(
            "empty_documents",
            (live.empty_documents, live.documents),
            (baseline.empty_documents, baseline.documents),
            EMPTY_DOCUMENTS,
            enough=enough,
        ),
        _histogram_signal("confidence", *confidence, enough=enough),
        _histogram_signal("labels", *labels, enough=enough),
    )
    return Drift(signals, live.documents, baseline.documents)


def stability_index(counts: Sequence[int], others: Sequence[int]) -> float:
    """Return the population stability index of two histograms with the same bins; 0 if their shares are equal.

    Bins that are empty in both histograms are left out, and half a count is added to every other bin.
    """
    bins = _filled(counts, others)
    mine, theirs = (sum(side) + _SMOOTHING * len(bins) for side in ([a for a, _ in bins], [b for _, b in bins]))
    shares = (((a + _SMOOTHING) / mine, (b + _SMOOTHING) / theirs) for a, b in bins)
    return math.fsum((p - q) * math.log(p / q) for p, q in shares)


def index_by_chance(counts: Sequence[int], others: Sequence[int]) -> float:
    """Return the bound that the index of two such histograms stays below in 999 of 1,000 cases without drift."""
    freedom = len(_filled(counts, others)) - 1
    n, m = sum(counts), sum(others)
    if freedom < 1 or not n or not m:
        return 0.0
    # Quantile of chi-squared, after E. Wilson and M. Hilferty (1931).
    spread = 2.0 / (9.0 * freedom)
    return (1.0 / n + 1.0 / m) * freedom * (1.0 - spread + _RARE * math.sqrt(spread)) ** 3


def _share_signal(
    name: str, live: tuple[int, int], baseline: tuple[int, int], bounds: Bounds, *, enough: bool
) -> Signal:
    """Compare two shares, each given as a part and its whole."""
    mine, theirs = (part / whole if whole else 0.0 for part, whole in (live, baseline))
    change = mine - theirs
    wholes = live[1] + baseline[1]
    together = (live[0] + baseline[0]) / wholes if wholes else 0.0
    chance = _RARE * math.sqrt(together * (1.0 - together) * sum(1.0 / whole for _, whole in (live, baseline) if whole))
    return Signal(name, change, chance, _verdict(abs(change), chance, bounds, enough=enough), theirs, mine)


def _histogram_signal(name: str, live: Sequence[int], baseline: Sequence[int], *, enough: bool) -> Signal:
    index, chance = stability_index(live, baseline), index_by_chance(live, baseline)
    return Signal(name, index, chance, _verdict(index, chance, INDEX, enough=enough))


def _verdict(change: float, by_chance: float, bounds: Bounds, *, enough: bool) -> Verdict:
    if not enough:
        return Verdict.TOO_FEW
    if change < bounds.some or change <= by_chance:
        return Verdict.NONE
    return Verdict.SOME if change < bounds.strong else Verdict.STRONG


def _aligned(live: Mapping[str, int], baseline: Mapping[str, int]) -> tuple[list[int], list[int]]:
    labels = [*dict.fromkeys((*baseline, *live))]
    return [live.get(label, 0) for label in labels], [baseline.get(label, 0) for label in labels]


def _filled(counts: Sequence[int], others: Sequence[int]) -> list[tuple[int, int]]:
    return [(a, b) for a, b in zip(counts, others, strict=True) if a or b]
