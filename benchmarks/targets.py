"""Ratios that releases must reach, and further informative ratios: medians of the ratios within each round."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Final

from benchmarks.results import (
    Figure,
    Results,
    batch_throughput,
    connections_throughput,
    cpu,
    many_tenants,
    mean_latency,
    one_tenant,
    p99_latency,
    throughput,
)

_TWO: Final = "two-processes"
_ONE: Final = "one-process"
_SHAPES: Final = ((_TWO, "two processes"), (_ONE, "one process"))
_FORMER: Final = "former-"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ratio of one system's figure to that of another."""

    what: str
    system: str
    figure: Figure
    other: str
    other_figure: Figure

    def spread(self, results: Results) -> Spread | None:
        """Return the ratio over all rounds, or ``None`` if it was not measured."""
        ratios = results.ratios(self.system, self.figure, self.other, self.other_figure)
        return Spread(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of a ratio over all rounds."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on a ratio."""

    ratio: Ratio
    at_least: float | None = None
    at_most: float | None = None

    @property
    def bound(self) -> str:
        """The bound as text."""
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"

    def is_reached(self, spread: Spread) -> bool:
        """Return whether the median is within the bound."""
        enough = self.at_least is None or spread.median >= self.at_least
        little = self.at_most is None or spread.median <= self.at_most
        return enough and little


def _faster(system: str, shape: str, other: str) -> Ratio:
    what = f"{shape}: requests/s at 64 in flight, to {other}"
    return Ratio(what, system, throughput(64), other, throughput(64))


def _sooner(system: str, shape: str, other: str) -> Ratio:
    what = f"{shape}: mean latency at 1 in flight, to {other}"
    return Ratio(what, system, mean_latency(1), other, mean_latency(1))


def _cheaper(system: str, shape: str, other: str) -> Ratio:
    what = f"{shape}: processor time a request at 64 in flight, to {other}"
    return Ratio(what, system, cpu(64), other, cpu(64))


def _targets_of_shape(system: str, shape: str) -> tuple[Target, ...]:
    """Return the targets that both shapes have."""
    return (
        Target(_faster(f"{system}-guarded", f"{shape} with access rules, metrics and log", f"{system}-off"), 0.9),
        Target(Ratio(f"{shape}: requests/s of many tenants, to one", system, many_tenants, system, one_tenant), 0.8),
        Target(
            Ratio(
                f"{shape}: requests/s over 500 connections with 1 each, to 8 with 8",
                *(system, connections_throughput, system, throughput(64)),
            ),
            0.4,
        ),
        Target(
            Ratio(
                f"{shape}: documents/s in batches of 256, to requests/s of triton",
                *(system, batch_throughput, "triton", throughput(64)),
            ),
            6.0,
        ),
    )


def _ratios_of_shape(system: str, shape: str) -> tuple[Ratio, ...]:
    """Return the ratios without a bound that both shapes have."""
    return (
        _cheaper(f"{system}-guarded", f"{shape} with access rules, metrics and log", f"{system}-off"),
        _faster(f"{system}-tls", f"{shape} with TLS", system),
        _sooner(f"{system}-tls", f"{shape} with TLS", system),
        _cheaper(f"{system}-tls", f"{shape} with TLS", system),
        _faster(f"{system}-traced", f"{shape} with traces", system),
        _cheaper(f"{system}-traced", f"{shape} with traces", system),
        _faster(f"{system}-workers", f"{shape} with 2 workers", system),
        _faster(system, shape, "turn"),
        _faster(system, shape, "engine-echo"),
        _faster(system, shape, f"{_FORMER}{system}"),
        _sooner(system, shape, f"{_FORMER}{system}"),
        _cheaper(system, shape, f"{_FORMER}{system}"),
        Ratio(
            f"{shape}: documents/s in batches of 256, to {_FORMER}{system}",
            *(system, batch_throughput, f"{_FORMER}{system}", batch_throughput),
        ),
    )


TARGETS: Final = (
    Target(_faster(_TWO, "two processes", "triton"), 2.5),
    Target(_faster(_TWO, "two processes", "torchserve"), 2.5),
    Target(_faster(_TWO, "two processes", "echo"), 4.0),
    Target(_faster(_TWO, "two processes", "plain-pair"), 12.0),
    Target(_faster(_ONE, "one process", "triton"), 2.8),
    Target(_faster(_ONE, "one process", "echo"), 4.5),
    Target(_sooner(_TWO, "two processes", "triton"), at_most=0.7),
    Target(_sooner(_ONE, "one process", "triton"), at_most=0.45),
    Target(
        Ratio(
            "two processes: p99 latency at 64 in flight, to torchserve",
            *(_TWO, p99_latency(64), "torchserve", p99_latency(64)),
        ),
        at_most=0.4,
    ),
    Target(_cheaper(_ONE, "one process", "turn"), at_most=1.5),
    *(target for system, shape in _SHAPES for target in _targets_of_shape(system, shape)),
    Target(_faster("before-torchserve", "before torchserve", "torchserve-exported"), 0.7),
)
"""All targets that must be reached."""

RATIOS: Final = (
    *(ratio for system, shape in _SHAPES for ratio in _ratios_of_shape(system, shape)),
    *(_sooner(bare, bare, "triton") for bare in ("turn", "engine-echo", "echo")),
    *(
        Ratio(
            f"{bare}: requests/s over 500 connections with 1 each, to 8 with 8",
            *(bare, connections_throughput, bare, throughput(64)),
        )
        for bare in ("turn", "engine-echo")
    ),
    *(
        Ratio(
            f"AsyncIntentClient: calls/s at {level} in flight, to a stub of grpc.aio",
            *("client", throughput(level), "client-grpc-aio", throughput(level)),
        )
        for level in (1, 64)
    ),
    Ratio(
        "AsyncIntentClient: processor time a call at 64 in flight, to a stub of grpc.aio",
        *("client", cpu(64), "client-grpc-aio", cpu(64)),
    ),
)
"""Ratios without a bound."""


def missed(results: Results) -> list[Target]:
    """Return the targets that were measured and not reached."""
    spreads = ((target, target.ratio.spread(results)) for target in TARGETS)
    return [target for target, spread in spreads if spread is not None and not target.is_reached(spread)]
