"""Results: rates by shape, variant and round, stored as JSON, with medians over the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import TypeAdapter

from benchmarks.results import Machine

WANTED_COST: Final = 0.05
"""Upper bound on the share of the throughput that metrics and traces take."""
JUDGED: Final = "on"
"""Variant that the target applies to."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Number and length of the measurements."""

    starts: int = 3
    """Number of fresh starts of all services: two processes of one program are never equally fast."""
    rounds: int = 5
    """Rounds after each start."""
    seconds: float = 3.0
    """Approximate length of each measurement, in seconds."""
    in_flight: int = 64


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement of one variant."""

    rate: float
    """Requests per second."""
    processor: float
    """Processor time of the services per request, in microseconds."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A variant, and the same services with nothing on directly before and after it."""

    before: Measurement
    variant: Measurement
    after: Measurement

    @property
    def cost(self) -> float:
        """Share of the throughput that the variant takes; below 0 if the variant was faster."""
        return 1.0 - self.variant.rate / statistics.fmean((self.before.rate, self.after.rate))

    @property
    def processor_cost(self) -> float:
        """Additional processor time of the variant, as a share of the processor time with nothing on."""
        return self.variant.processor / statistics.fmean((self.before.processor, self.after.processor)) - 1.0


@dataclass(frozen=True, slots=True)
class Spans:
    """Numbers of sent and dropped spans of a variant, over all processes."""

    sent: int = 0
    dropped: int = 0

    def __add__(self, other: Spans) -> Spans:
        return Spans(self.sent + other.sent, self.dropped + other.dropped)


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a variant over all rounds."""

    median: float
    lower: float
    """Lower quartile of the rounds."""
    upper: float
    """Upper quartile of the rounds."""
    rounds: int

    @classmethod
    def of(cls, costs: Sequence[float]) -> Cost:
        """Return the figures of ``costs``, one for each round. ``costs`` must not be empty."""
        if len(costs) == 1:
            return cls(costs[0], costs[0], costs[0], 1)
        lower, median, upper = statistics.quantiles(costs, n=4, method="inclusive")
        return cls(median, lower, upper, len(costs))


@dataclass(slots=True)
class Results:
    """All results."""

    day: str
    machine: Machine
    plan: Plan
    pairs: dict[str, dict[str, list[Pair]]] = field(default_factory=dict)
    """Pairs by shape and variant, in the order of the rounds."""
    spans: dict[str, dict[str, Spans]] = field(default_factory=dict)
    """Spans by shape and variant."""

    def cost(self, shape: str, variant: str) -> Cost | None:
        """Return the cost of a variant in throughput, or ``None`` if it was not measured."""
        pairs = self.pairs.get(shape, {}).get(variant)
        return Cost.of([pair.cost for pair in pairs]) if pairs else None

    def processor_cost(self, shape: str, variant: str) -> Cost:
        """Return the cost of a variant in processor time. Raises KeyError if it was not measured."""
        return Cost.of([pair.processor_cost for pair in self.pairs[shape][variant]])

    def unobserved(self, shape: str) -> Measurement:
        """Return the median figures with nothing on."""
        before = [pair.before for pairs in self.pairs[shape].values() for pair in pairs]
        return Measurement(
            statistics.median(one.rate for one in before), statistics.median(one.processor for one in before)
        )

    def missed(self) -> list[str]:
        """Return the shapes whose target was measured and missed."""
        costs = {shape: self.cost(shape, JUDGED) for shape in self.pairs}
        return [shape for shape, cost in costs.items() if cost is not None and cost.median > WANTED_COST]

    def to_json(self) -> bytes:
        """Return the results as JSON."""
        return _RESULTS.dump_json(self, indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Results:
        """Return the results that :meth:`to_json` wrote. Raises ValueError for any other data."""
        return _RESULTS.validate_json(data)


_RESULTS: Final = TypeAdapter(Results)
