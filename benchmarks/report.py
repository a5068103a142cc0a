"""docs/benchmarks.md out of results."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from benchmarks.plots import LATENCY_PLOT, PLOT_FOLDER, THROUGHPUT_PLOT
from benchmarks.results import (
    Figure,
    LevelFigures,
    Results,
    at,
    batch_throughput,
    cpu,
    many_tenants,
    memory,
    one_tenant,
    throughput,
)
from benchmarks.targets import TARGETS, Target

_OPENING: Final = """\
# Benchmarks

Written by `scripts/bench --write-docs` on {day}. Absolute figures hold for one machine; read the ratios.

![requests per second]({folder}/{throughput})

![latency]({folder}/{latency})

## Targets

Each ratio is taken within a round; the median over the rounds counts.
"""
_METHOD: Final = """\
## How it was measured

- {plan.rounds} rounds. In each, every system is started, verified, warmed up, measured for about {plan.seconds:g} s
  at each level, and stopped; nothing else runs meanwhile. The machine's drift hits all alike.
- Every peer runs in an environment of its own with pinned versions (`peers/requirements/`), and with one
  thread for arithmetic. All but the three without a model serve `models/clinc150` (5,303 tokens, 64 dimensions, 151
  classes) with the same tokenizer, and all but the book's way with the same network code; servers that gather requests
  take up to 64 at once.
- All are asked the same: "make a 10 minute timer". The load is h2load on the same machine: 8 connections, which share
  the requests in flight; one connection where one is in flight.
- The same bytes go through a gRPC client before and behind every run, and status and label are checked. Under load
  h2load sees only HTTP 200, which gRPC's errors have too: a run counts only if its responses had, to the byte, the
  data of right answers.
- Latencies are from h2load's log of every request; processor time is that of the system's processes.
- The echoes and the plain pair have no model: they show what grpcio's asyncio server, on uvloop, costs by itself, and
  what Envoy with Python inside costs before any gRPC is spoken, which is as fast as our Envoy transport can be.
- "The book's way" loads the model for each request, as the book's predictor does, behind thread pools of grpcio.

Machine: {machine.processor}, {machine.cores} cores, {machine.memory_gibibytes:g} GiB of memory, {machine.system},
Python {machine.python}.

## Requests per second

One document a request, one tenant, by requests in flight; medians over the rounds.
"""
_LATENCY: Final = """\
## Latency

Milliseconds, by requests in flight; medians over the rounds.
"""
_COSTS: Final = """\
## Processor time and memory

Of all processes of the system: microseconds of processor time a request, by requests in flight, and MiB of memory
behind the load (pages that processes share count once).
"""
_BATCHES: Final = """\
## Batches and many tenants

`PredictBatch` with 256 different documents, {plan.batch_in_flight} calls in flight. Many tenants: {plan.tenants:,}
models in memory, requests spread evenly over them, 64 in flight; one tenant: the same service and generator. That
generator is the harness's own, because h2load sends one body only; it checks the status and label of every answer.
"""
_NOTHING: Final = "-"
_PERCENTILES: Final[tuple[tuple[str, Callable[[LevelFigures], float]], ...]] = (
    ("mean", lambda level: level.latency.mean),
    ("p50", lambda level: level.latency.p50),
    ("p90", lambda level: level.latency.p90),
    ("p99", lambda level: level.latency.p99),
)


def report(results: Results) -> str:
    """Return the page, as Markdown."""
    return "\n".join(_lines(results)).rstrip() + "\n"


def target_rows(results: Results) -> list[tuple[str, str, str, str, str]]:
    """Return what, bound, median, range and verdict of each target."""
    return [_target_row(target, results) for target in TARGETS]


def throughput_rows(results: Results) -> list[list[str]]:
    """Return each system's title, hops, and requests per second by level."""
    return [
        [
            results.systems[name].title,
            str(results.systems[name].hops),
            *(_number(results.median(name, throughput(level))) for level in results.plan.levels),
        ]
        for name in results.measured()
    ]


def _lines(results: Results) -> Iterator[str]:
    plan = results.plan
    levels = [f"{level:,}" for level in plan.levels]
    yield _OPENING.format(day=results.day, throughput=THROUGHPUT_PLOT, latency=LATENCY_PLOT, folder=PLOT_FOLDER)
    yield from _table(("ratio", "wanted", "median", "least to most", ""), target_rows(results))
    yield _METHOD.format(plan=plan, machine=results.machine)
    yield from _table(("system", "hops", *levels), throughput_rows(results))
    yield from _ratios(results, levels)
    yield _LATENCY
    yield from _latencies(results)
    yield _COSTS
    yield from _table(("system", *levels, "MiB"), _costs(results))
    yield from _batches_and_tenants(results)
    yield from _missing(results)


def _ratios(results: Results, levels: Sequence[str]) -> Iterator[str]:
    ours = [name for name in results.measured() if name.startswith("ours")]
    others = [name for name in results.measured() if name not in ours]
    for name in ours:
        if not others:
            continue
        yield f"{results.systems[name].title}: how many times as many requests per second, by requests in flight."
        yield ""
        rows = [
            [
                results.systems[other].title,
                *(
                    _ratio(results.ratios(name, throughput(level), other, throughput(level)))
                    for level in results.plan.levels
                ),
            ]
            for other in others
        ]
        yield from _table(("against", *levels), rows)


def _latencies(results: Results) -> Iterator[str]:
    for level in results.plan.levels:
        yield f"### {level:,} in flight"
        yield ""
        rows = [
            [
                results.systems[name].title,
                *(_number(results.median(name, at(level, take)), 2) for _, take in _PERCENTILES),
            ]
            for name in results.measured()
        ]
        yield from _table(("system", *(title for title, _ in _PERCENTILES)), rows)


def _costs(results: Results) -> list[list[str]]:
    return [
        [
            results.systems[name].title,
            *(_number(results.median(name, cpu(level))) for level in results.plan.levels),
            _number(results.median(name, memory)),
        ]
        for name in results.measured()
    ]


def _batches_and_tenants(results: Results) -> Iterator[str]:
    ours = [name for name in results.measured() if results.median(name, batch_throughput) is not None]
    if not ours:
        return
    yield _BATCHES.format(plan=results.plan)
    columns: tuple[tuple[str, Figure], ...] = (
        ("documents/s in batches", batch_throughput),
        ("requests/s, many tenants", many_tenants),
        ("requests/s, one tenant", one_tenant),
    )
    rows = [
        [results.systems[name].title, *(_number(results.median(name, figure)) for _, figure in columns)]
        for name in ours
    ]
    yield from _table(("system", *(title for title, _ in columns)), rows)


def _missing(results: Results) -> Iterator[str]:
    yield "## What is missing"
    yield ""
    if not results.missing:
        yield "Nothing: every system that was asked for ran to the end."
    for name, reason in results.missing.items():
        yield f"- {results.systems[name].title}: {reason}"


def _target_row(target: Target, results: Results) -> tuple[str, str, str, str, str]:
    outcome = target.outcome(results)
    if outcome is None:
        return target.what, target.bound, _NOTHING, _NOTHING, "not measured"
    spread = f"{outcome.least:.2f} to {outcome.most:.2f}"
    return target.what, target.bound, f"{outcome.median:.2f}", spread, "reached" if outcome.reached else "MISSED"


def _ratio(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f}" if ratios else _NOTHING


def _number(value: float | None, digits: int = 0) -> str:
    return _NOTHING if value is None else f"{value:,.{digits}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table whose first column is text and whose others are numbers, and an empty line."""
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join(['---', *['---:'] * (len(head) - 1)])} |"
    for row in rows:
        yield f"| {' | '.join(value.replace('|', '/') for value in row)} |"
    yield ""
