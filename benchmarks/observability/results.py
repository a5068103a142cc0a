"""What was measured: rates by shape, variant and round, kept as JSON, with the median of what each round says."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import TypeAdapter

from benchmarks.results import Machine

WANTED_COST: Final = 0.05
"""Most of the throughput that metrics and traces may take."""
JUDGED: Final = "on"
"""The variant that the target is about."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, for how long."""

    starts: int = 3
    """How often all services are started anew: two processes of one program are never equally fast."""
    rounds: int = 5
    """After each start."""
    seconds: float = 3.0
    """Of each measurement, about."""
    in_flight: int = 64


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement of one variant."""

    rate: float
    """Requests a second."""
    processor: float
    """Microseconds of processor time that the services took for each request."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A variant, and the same services with nothing on right before and after."""

    before: Measurement
    variant: Measurement
    after: Measurement

    @property
    def cost(self) -> float:
        """The share of the throughput that the variant takes; below 0 where it was the faster one."""
        return 1.0 - self.variant.rate / statistics.fmean((self.before.rate, self.after.rate))

    @property
    def processor_cost(self) -> float:
        """The processor time that the variant takes more, as a share of that with nothing on."""
        return self.variant.processor / statistics.fmean((self.before.processor, self.after.processor)) - 1.0


@dataclass(frozen=True, slots=True)
class Spans:
    """What became of the spans of a variant, in all processes."""

    sent: int = 0
    dropped: int = 0

    def __add__(self, other: Spans) -> Spans:
        return Spans(self.sent + other.sent, self.dropped + other.dropped)


@dataclass(frozen=True, slots=True)
class Cost:
    """What all rounds say of a variant."""

    median: float
    lower: float
    """A quarter of the rounds are below."""
    upper: float
    """A quarter of the rounds are above."""
    rounds: int

    @classmethod
    def of(cls, costs: Sequence[float]) -> Cost:
        """Return the figures of ``costs``, those of each round, which are not empty."""
        if len(costs) == 1:
            return cls(costs[0], costs[0], costs[0], 1)
        lower, median, upper = statistics.quantiles(costs, n=4, method="inclusive")
        return cls(median, lower, upper, len(costs))


@dataclass(slots=True)
class Results:
    """All of it."""

    day: str
    machine: Machine
    plan: Plan
    pairs: dict[str, dict[str, list[Pair]]] = field(default_factory=dict)
    """By shape and variant, in the order of the rounds."""
    spans: dict[str, dict[str, Spans]] = field(default_factory=dict)
    """By shape and variant."""

    def cost(self, shape: str, variant: str) -> Cost | None:
        """Return what a variant costs of the throughput; ``None`` where it was not measured."""
        pairs = self.pairs.get(shape, {}).get(variant)
        return Cost.of([pair.cost for pair in pairs]) if pairs else None

    def processor_cost(self, shape: str, variant: str) -> Cost:
        """Return what processor time a variant costs. Raises KeyError where it was not measured."""
        return Cost.of([pair.processor_cost for pair in self.pairs[shape][variant]])

    def unobserved(self, shape: str) -> Measurement:
        """Return the median figures with nothing on."""
        before = [pair.before for pairs in self.pairs[shape].values() for pair in pairs]
        return Measurement(
            statistics.median(one.rate for one in before), statistics.median(one.processor for one in before)
        )

    def missed(self) -> list[str]:
        """Return the shapes whose target was measured and is missed."""
        costs = {shape: self.cost(shape, JUDGED) for shape in self.pairs}
        return [shape for shape, cost in costs.items() if cost is not None and cost.median > WANTED_COST]

    def to_json(self) -> bytes:
        """Return them as JSON."""
        return _RESULTS.dump_json(self, indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Results:
        """Return what :meth:`to_json` wrote. Raises ValueError where it is something else."""
        return _RESULTS.validate_json(data)


_RESULTS: Final = TypeAdapter(Results)
