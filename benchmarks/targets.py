"""The ratios that releases must reach: medians of the ratios within each round."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Final

from benchmarks.results import (
    Figure,
    Results,
    batch_throughput,
    many_tenants,
    mean_latency,
    one_tenant,
    p99_latency,
    throughput,
)

_TWO: Final = "ours"
_ONE: Final = "ours-one-process"


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio of one figure to another."""

    what: str
    system: str
    figure: Figure
    other: str
    other_figure: Figure
    at_least: float | None = None
    at_most: float | None = None

    @property
    def bound(self) -> str:
        """The bound as text."""
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"

    def outcome(self, results: Results) -> Outcome | None:
        """Return how it went, or ``None`` where it was not measured."""
        ratios = results.ratios(self.system, self.figure, self.other, self.other_figure)
        if not ratios:
            return None
        median = statistics.median(ratios)
        enough = self.at_least is None or median >= self.at_least
        little = self.at_most is None or median <= self.at_most
        return Outcome(median, min(ratios), max(ratios), reached=enough and little)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A ratio over all rounds."""

    median: float
    least: float
    most: float
    reached: bool


def _faster(system: str, other: str, times: float) -> Target:
    shape = "two processes" if system == _TWO else "one process"
    what = f"{shape}: requests/s at 64 in flight to {other}"
    return Target(what, system, throughput(64), other, throughput(64), at_least=times)


TARGETS: Final = (
    _faster(_TWO, "echo", 1.7),
    _faster(_TWO, "plain-pair", 7.0),
    _faster(_TWO, "torchserve", 3.0),
    _faster(_TWO, "triton", 1.8),
    _faster(_ONE, "echo", 2.0),
    _faster(_ONE, "triton", 2.2),
    Target(
        "two processes: mean latency at 1 in flight to triton",
        *(_TWO, mean_latency(1), "triton", mean_latency(1)),
        at_most=1.0,
    ),
    Target(
        "one process: mean latency at 1 in flight to triton",
        *(_ONE, mean_latency(1), "triton", mean_latency(1)),
        at_most=0.45,
    ),
    Target(
        "two processes: p99 latency at 64 in flight to torchserve",
        *(_TWO, p99_latency(64), "torchserve", p99_latency(64)),
        at_most=0.6,
    ),
    Target(
        "before torchserve: requests/s at 64 in flight to the same torchserve asked directly",
        *("ours-torchserve", throughput(64), "torchserve-exported", throughput(64)),
        at_least=0.5,
    ),
    Target(
        "two processes: documents/s in batches of 256 to one by one",
        *(_TWO, batch_throughput, _TWO, throughput(64)),
        at_least=5.0,
    ),
    Target(
        "two processes: requests/s of many tenants to one tenant",
        *(_TWO, many_tenants, _TWO, one_tenant),
        at_least=0.8,
    ),
)
"""The one table of them."""


def missed(results: Results) -> list[Target]:
    """Return the targets that were measured and not reached."""
    outcomes = ((target, target.outcome(results)) for target in TARGETS)
    return [target for target, outcome in outcomes if outcome is not None and not outcome.reached]
