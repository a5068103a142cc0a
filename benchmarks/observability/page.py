"""Generator of docs/observability-cost.md from measured results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from benchmarks.observability.results import JUDGED, WANTED_COST, Cost, Results
from benchmarks.observability.services import SHAPES, VARIANTS

_OPENING: Final = """\
# What it costs to be watched

Written by `scripts/observability-cost --write-docs` on {day}. The target: metrics and traces, as they are switched on
without further settings, take at most {wanted:.0%} of the throughput.

The cost in throughput is the share of the requests a second that are missing beside the same services with nothing on:
the median of all rounds, and between which figures the middle half of the rounds lie. Below zero, the variant was the
faster one; the first row, where nothing is on either, says how much of a figure is noise. The cost in processor time is
what the services took more of it for a request, whatever else the machine did meanwhile.
"""
_METHOD: Final = """
## How it was measured

- {plan.starts} starts of all services, {plan.rounds} rounds after each. All variants run at the same time, and one is
  asked at a time: nothing on, a variant, nothing on, the next variant, there and back. Each variant is held against
  the mean of its two neighbours, so that the machine's drift hits both alike.
- Each measurement takes about {plan.seconds:g} s: h2load asks `models/clinc150` for one document, with
  {plan.in_flight} requests in flight. Status and label are checked before and behind each, and the bytes of all
  answers.
- Metrics are scraped once in each measurement, of each service: more often than Prometheus does.
- Traces go to a receiver of OTLP over gRPC, a process of its own on the same machine, which takes processor time too:
  where all calls are traced, much of it. Spans that find the queue to it full are dropped, as the services do it
  wherever they run.
- Log lines are JSON, written to a file.

Machine: {machine.processor}, {machine.cores} cores, {machine.memory_gibibytes:g} GiB of memory, {machine.system},
Python {machine.python}. Run it again: `scripts/observability-cost --help`.
"""


def page(results: Results) -> str:
    """Return the page, as Markdown."""
    return "\n".join(_lines(results)).rstrip() + "\n"


def rows(results: Results, shape: str) -> Iterator[tuple[str, str, str, str]]:
    """Return title, cost in throughput, cost in processor time and verdict of each measured variant."""
    for variant in VARIANTS:
        cost = results.cost(shape, variant.name)
        if cost is not None:
            verdict = ""
            if variant.name == JUDGED:
                verdict = "reached" if cost.median <= WANTED_COST else "MISSED"
            yield variant.title, _shown(cost), _shown(results.processor_cost(shape, variant.name)), verdict


def _shown(cost: Cost) -> str:
    return f"{cost.median:.1%} ({cost.lower:.1%} to {cost.upper:.1%})"


def _lines(results: Results) -> Iterator[str]:
    yield _OPENING.format(day=results.day, wanted=WANTED_COST)
    for shape in results.pairs:
        yield f"## {SHAPES[shape].capitalize()}"
        yield ""
        unobserved = results.unobserved(shape)
        yield (
            f"With nothing on {unobserved.rate:,.0f} requests a second,"
            f" {unobserved.processor:,.0f} µs of processor time each."
        )
        yield ""
        yield "| on | cost in throughput | in processor time | target |"
        yield "| --- | --- | --- | --- |"
        for row in rows(results, shape):
            yield f"| {' | '.join(row)} |"
        yield ""
        for variant in VARIANTS:
            spans = results.spans[shape].get(variant.name)
            if spans is not None and spans.sent:
                yield f"- Spans with {variant.title}: {spans.sent:,} arrived, {spans.dropped:,} were dropped."
        yield ""
    yield _METHOD.format(plan=results.plan, machine=results.machine).lstrip()
