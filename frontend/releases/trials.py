"""What versions on trial have shown: counted in plain numbers, by name, role and version."""

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
    """Of one version in one role, by this frontend, since it went on trial. Stable's are counted beside."""

    role: str
    version: str
    answers: int = 0
    """Queries that it was asked, those that failed among them."""
    errors: int = 0
    """Of those, the ones that failed where stable did not."""
    compared: int = 0
    """Answers that were held against those of stable."""
    agreed: int = 0
    """Of those, the ones with the same label."""
    skipped: int = 0
    """Answers that were not compared, because too many comparisons were under way."""


class Trials:
    """Knows the counts of all names that have a version on trial. Whoever begins them bounds how many there are."""

    def __init__(self) -> None:
        self._counts: dict[ModelId, Sequence[TrialCounts]] = {}
        self.taken_back = 0
        """Canaries, since the service started."""

    def of(self, name: ModelId) -> Sequence[TrialCounts]:
        """Return the counts of the versions of ``name``, stable first; none where nothing is on trial."""
        return self._counts.get(name, ())

    def of_all(self) -> Iterator[tuple[ModelId, Sequence[TrialCounts]]]:
        """Give each name that has a version on trial, with its counts. May be called in any thread."""
        yield from self._counts.copy().items()

    def keep(self, name: ModelId, counts: Sequence[TrialCounts]) -> None:
        """Know these counts of ``name``, and no others."""
        if counts:
            self._counts[name] = counts
        else:
            self._counts.pop(name, None)


def why_beyond_bounds(counts: TrialCounts, canary: Canary) -> str | None:
    """Return why the canary has to be taken back; ``None`` where nothing says so yet.

    A rate of few answers is off by chance. So what is held against the bound is the least rate that goes with what was
    counted: the lower end of the score interval of E. B. Wilson ("Probable Inference, the Law of Succession, and
    Statistical Inference", 1927), at three standard deviations, since it is judged anew with every answer.
    """
    if counts.answers >= canary.min_answers and least_rate(counts.errors, counts.answers) > canary.max_error_rate:
        return f"{counts.errors} of {counts.answers} answers failed"
    different = counts.compared - counts.agreed
    if counts.compared >= canary.min_answers and least_rate(different, counts.compared) > canary.max_disagreement:
        return f"{different} of {counts.compared} answers differed from stable"
    return None


def least_rate(hits: int, trials: int) -> float:
    """Return the lower end of Wilson's interval of a rate, at three standard deviations; 0 where nothing was tried."""
    if not hits:
        return 0.0
    rate, square = hits / trials, _DEVIATIONS * _DEVIATIONS
    middle = rate + square / (2 * trials)
    half = _DEVIATIONS * math.sqrt(rate * (1.0 - rate) / trials + square / (4 * trials * trials))
    return max(0.0, (middle - half) / (1.0 + square / trials))
