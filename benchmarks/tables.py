"""Results as tables, for the page and the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.results import (
    Figure,
    Kind,
    LevelFigures,
    Results,
    SystemFigures,
    at,
    batch_throughput,
    cpu,
    many_tenants,
    memory,
    one_tenant,
    throughput,
)
from benchmarks.targets import RATIOS, TARGETS, Ratio

SERVERS: Final = (Kind.FORMER, Kind.OURS, Kind.PEER)
"""Kinds that answer requests, without variants."""
REACHED: Final = "reached"
MISSED: Final = "MISSED"

_NOT_MEASURED: Final = "not measured"
_NOTHING: Final = "-"
_RATIO_HEAD: Final = ("median", "least to most")


@dataclass(frozen=True, slots=True)
class Table:
    """A column of text, followed by columns of numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [self.head, ("---", *["---:"] * (len(self.head) - 1)), *self.rows]
        return "\n".join(f"| {' | '.join(value.replace('|', '/') for value in line)} |" for line in lines)


def targets(results: Results) -> Table:
    """Return bound, median, range and verdict of each target."""
    rows = []
    for target in TARGETS:
        spread = target.ratio.spread(results)
        verdict = _NOT_MEASURED if spread is None else REACHED if target.is_reached(spread) else MISSED
        rows.append((target.ratio.what, target.bound, *_spread(target.ratio, results), verdict))
    return Table(("ratio", "wanted", *_RATIO_HEAD, ""), tuple(rows))


def further_ratios(results: Results) -> Table:
    """Return the ratios without a bound that were measured."""
    rows = [(ratio.what, *_spread(ratio, results)) for ratio in RATIOS if ratio.spread(results) is not None]
    return Table(("ratio", *_RATIO_HEAD), tuple(rows))


def requests_per_second(results: Results) -> Table:
    """Return each server's hops, and its requests per second by requests in flight."""
    rows = [
        (
            results.systems[name].title,
            str(results.systems[name].hops),
            *(_number(results.median(name, throughput(level))) for level in results.plan.levels),
        )
        for name in results.measured(*SERVERS)
    ]
    return Table(("system", "hops", *_levels(results)), tuple(rows))


def times_as_many(results: Results, name: str) -> Table:
    """Return the requests per second of one of our systems as a multiple of those of every other server."""
    rows = [
        (
            results.systems[other].title,
            *(
                _median(results.ratios(name, throughput(level), other, throughput(level)))
                for level in results.plan.levels
            ),
        )
        for other in results.measured(Kind.FORMER, Kind.PEER)
    ]
    return Table(("against", *_levels(results)), tuple(rows))


def latencies(results: Results, level: int) -> Table:
    """Return each server's latencies in milliseconds at a number of requests in flight."""
    columns: tuple[tuple[str, Callable[[LevelFigures], float]], ...] = (
        ("mean", lambda figures: figures.latency.mean),
        ("p50", lambda figures: figures.latency.p50),
        ("p90", lambda figures: figures.latency.p90),
        ("p99", lambda figures: figures.latency.p99),
    )
    rows = [
        (results.systems[name].title, *(_number(results.median(name, at(level, take)), 2) for _, take in columns))
        for name in results.measured(*SERVERS)
    ]
    return Table(("system", *(title for title, _ in columns)), tuple(rows))


def costs(results: Results) -> Table:
    """Return each server's processor time per request in microseconds, and its memory."""
    rows = [
        (
            results.systems[name].title,
            *(_number(results.median(name, cpu(level))) for level in results.plan.levels),
            _number(results.median(name, memory)),
        )
        for name in results.measured(*SERVERS)
    ]
    return Table(("system", *_levels(results), "MiB"), tuple(rows))


def summary(results: Results, level: int, *kinds: Kind) -> Table:
    """Return rate, latency and processor time of all subjects of ``kinds`` that have figures for a level."""
    return _summary(results, lambda figures: figures.levels.get(level), kinds)


def many_connections(results: Results) -> Table:
    """Return rate, latency and processor time over many connections with one request each."""
    return _summary(results, lambda figures: figures.connections, ())


def batches_and_tenants(results: Results) -> Table:
    """Return the rates of batches and of many tenants, for systems that have any."""
    columns: tuple[tuple[str, Figure], ...] = (
        ("documents/s in batches", batch_throughput),
        ("requests/s, many tenants", many_tenants),
        ("requests/s, one tenant", one_tenant),
    )
    rows = [
        (results.systems[name].title, *(_number(results.median(name, figure)) for _, figure in columns))
        for name in results.measured()
        if any(results.median(name, figure) is not None for _, figure in columns)
    ]
    return Table(("system", *(title for title, _ in columns)), tuple(rows))


def _summary(results: Results, take: Callable[[SystemFigures], LevelFigures | None], kinds: Iterable[Kind]) -> Table:
    def figure(of: Callable[[LevelFigures], float]) -> Figure:
        def taken(figures: SystemFigures) -> float | None:
            level = take(figures)
            return None if level is None else of(level)

        return taken

    columns: tuple[tuple[str, int, Figure], ...] = (
        ("requests/s", 0, figure(lambda level: level.requests_per_second)),
        ("mean ms", 2, figure(lambda level: level.latency.mean)),
        ("p99 ms", 2, figure(lambda level: level.latency.p99)),
        ("µs of processor", 1, figure(lambda level: level.cpu_microseconds)),
    )
    rows = [
        (
            results.systems[name].title,
            *(_number(results.median(name, taken), digits) for _, digits, taken in columns),
        )
        for name in results.measured(*kinds)
        if results.values(name, columns[0][2])
    ]
    return Table(("system", *(title for title, _, _ in columns)), tuple(rows))


def _levels(results: Results) -> tuple[str, ...]:
    return tuple(f"{level:,}" for level in results.plan.levels)


def _spread(ratio: Ratio, results: Results) -> tuple[str, str]:
    spread = ratio.spread(results)
    if spread is None:
        return _NOTHING, _NOTHING
    return f"{spread.median:.2f}", f"{spread.least:.2f} to {spread.most:.2f}"


def _median(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f}" if ratios else _NOTHING


def _number(value: float | None, digits: int = 0) -> str:
    return _NOTHING if value is None else f"{value:,.{digits}f}"
