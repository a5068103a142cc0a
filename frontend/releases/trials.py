"""Results of versions on trial: plain counts by name, role and version."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from serving.domain.model_id import ModelId
from serving.domain.releases.release import Canary

STABLE: Final = "stable"
CANARY: Final = "canary"
SHADOW: Final = "shadow"

_DEVIATIONS: Final = 3.0


@dataclass(slots=True, eq=False)
class TrialCounts:
    """Counts of one version in one role, by this frontend, since the trial began. Stable is counted alongside."""

    role: str
    version: str
    answers: int = 0
    """Queries that the version was sent, including failed ones."""
    errors: int = 0
    """Queries that failed where stable did not."""
    compared: int = 0
    """Answers that were compared with those of stable."""
    agreed: int = 0
    """Compared answers that had the same label."""
    skipped: int = 0
    """Answers that were not compared, because too many comparisons were in progress."""


class Trials:
    """Counts of all names that have a version on trial. The caller that adds names bounds their number."""

    def __init__(self) -> None:
        self._counts: dict[ModelId, Sequence[TrialCounts]] = {}
        self.taken_back = 0
        """Number of canaries taken back since the service started."""

    def of(self, name: ModelId) -> Sequence[TrialCounts]:
        """Return the counts of the versions of ``name``, stable first; empty if no version is on trial."""
        return self._counts.get(name, ())

    def of_all(self) -> Iterator[tuple[ModelId, Sequence[TrialCounts]]]:
        """Yield each name that has a version on trial, with its counts. May be called in any thread."""
        yield from self._counts.copy().items()

    def keep(self, name: ModelId, counts: Sequence[TrialCounts]) -> None:
        """Replace the counts of ``name``; without counts, remove the name."""
        if counts:
            self._counts[name] = counts
        else:
            self._counts.pop(name, None)


def why_beyond_bounds(counts: TrialCounts, canary: Canary) -> str | None:
    """Return why the canary has to be taken back; ``None`` if there is no reason yet.

    A rate from few answers deviates by chance. Therefore the bound is compared with the lowest rate that is consistent
    with the counts: the lower end of the score interval of E. B. Wilson ("Probable Inference, the Law of Succession,
    and Statistical Inference", 1927), at three standard deviations, because the canary is judged again with every
    answer.
    """
    if counts.answers >= canary.min_answers and least_rate(counts.errors, counts.answers) > canary.max_error_rate:
        return f"{counts.errors} of {counts.answers} answers failed"
    different = counts.compared - counts.agreed
    if counts.compared >= canary.min_answers and least_rate(different, counts.compared) > canary.max_disagreement:
        return f"{different} of {counts.compared} answers differed from stable"
    return None


def least_rate(hits: int, trials: int) -> float:
    """Return the lower end of Wilson's interval of a rate, at three standard deviations; 0 without hits."""
    if not hits:
        return 0.0
    rate, square = hits / trials, _DEVIATIONS * _DEVIATIONS
    middle = rate + square / (2 * trials)
    half = _DEVIATIONS * math.sqrt(rate * (1.0 - rate) / trials + square / (4 * trials * trials))
    return max(0.0, (middle - half) / (1.0 + square / trials))
