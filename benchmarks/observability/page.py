"""Generator of docs/observability-cost.md from measured results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from benchmarks.observability.results import JUDGED, WANTED_COST, Cost, Results
from benchmarks.observability.services import SHAPES, VARIANTS

_OPENING: Final = """\
# Cost of observability

`scripts/observability-cost --write-docs` wrote this page on {day}. Target: metrics and traces with their default
settings take at most {wanted:.0%} of the throughput.

The cost in throughput is the share of the requests per second that the variant loses against the same services with
nothing on. Each cell shows the median of all rounds, and the range of the middle half of the rounds. Below zero, the
variant was faster. The first row, where nothing is on either, shows how much of a figure is noise. The cost in
processor time is the additional processor time of the services per request, regardless of other work on the machine.
"""
_METHOD: Final = """
## How it was measured

- {plan.starts} starts of all services, {plan.rounds} rounds after each. All variants run at the same time, and one is
  measured at a time: nothing on, a variant, nothing on, the next variant, and so on, forward and backward. Each
  variant is compared with the mean of its two neighbours, so that drift of the machine affects both alike.
- Each measurement takes about {plan.seconds:g} s: h2load sends one document per request to `models/clinc150`, with
  {plan.in_flight} requests in flight. Status and label are checked before and after each measurement, and so are the
  bytes of all answers.
- The metrics of each service are scraped once per measurement, which is more often than Prometheus does.
- Traces go to an OTLP receiver over gRPC. The receiver is a separate process on the same machine and uses processor
  time too, much of it if all calls are traced. As in any deployment, the services drop spans when the queue to the
  receiver is full.
- Log lines are JSON, written to a file.

Machine: {machine.processor}, {machine.cores} cores, {machine.memory_gibibytes:g} GiB of memory, {machine.system},
Python {machine.python}. To repeat: `scripts/observability-cost --help`.
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
