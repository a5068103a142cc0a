"""Short rounds by turns: nothing on, a variant, nothing on, the next variant, and so on, forward and backward."""

from __future__ import annotations

import datetime as dt
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.load import timed
from benchmarks.observability.results import Measurement, Pair, Plan, Results, Spans
from benchmarks.observability.services import NOTHING, Observed, Variant, services
from benchmarks.results import Machine

Tell = Callable[[str], None]

_WARM_UP_REQUESTS: Final = 2000


def steps(plan: Plan, shapes: Sequence[str]) -> int:
    """Return the number of steps that :func:`measure` reports."""
    return len(shapes) * plan.starts * (1 + plan.rounds)


def measure(plan: Plan, shapes: Sequence[str], variants: Sequence[Variant], tell: Tell) -> Results:
    """Measure ``variants`` in all ``shapes``.

    Raises:
        WrongAnswer: not every answer was right.
        AssertionError: a variant did not do what it is measured for.
    """
    results = Results(dt.datetime.now(tz=dt.UTC).date().isoformat(), Machine.this(), plan)
    for shape in shapes:
        pairs: dict[str, list[Pair]] = {variant.name: [] for variant in variants}
        results.pairs[shape] = pairs
        for start in range(1, plan.starts + 1):
            tell(f"{shape}: start {start} of {plan.starts}")
            with (
                tempfile.TemporaryDirectory(prefix="intent-bench-", ignore_cleanup_errors=True) as folder,
                services(shape, variants, Path(folder)) as running,
            ):
                warm = [_measured(observed, plan, _WARM_UP_REQUESTS, Path(folder)) for observed in running.values()]
                requests = max(2 * plan.in_flight, int(plan.seconds * max(one.rate for one in warm)))
                for number in range(1, plan.rounds + 1):
                    tell(f"{shape}: start {start} of {plan.starts}, round {number} of {plan.rounds}")
                    ordered = variants if number % 2 else list(reversed(variants))
                    for name, pair in _round(running, ordered, plan, requests, Path(folder)):
                        pairs[name].append(pair)
                spans = results.spans.setdefault(shape, {})
                for name, observed in running.items():
                    spans[name] = spans.get(name, Spans()) + observed.checked()
    return results


def _round(
    running: dict[str, Observed], variants: Sequence[Variant], plan: Plan, requests: int, folder: Path
) -> Iterator[tuple[str, Pair]]:
    before = _measured(running[NOTHING], plan, requests, folder)
    for variant in variants:
        measured = _measured(running[variant.name], plan, requests, folder)
        after = _measured(running[NOTHING], plan, requests, folder)
        yield variant.name, Pair(before, measured, after)
        before = after


def _measured(observed: Observed, plan: Plan, requests: int, folder: Path) -> Measurement:
    """Return the figures of a run with right answers only; scrape the services once during the run."""
    scrape = threading.Timer(plan.seconds / 2, observed.scrape)
    began = observed.processor_seconds()
    scrape.start()
    try:
        run = timed(observed.call, in_flight=plan.in_flight, requests=requests, workplace=folder)
    finally:
        scrape.join()
    return Measurement(run.requests_per_second, 1e6 * (observed.processor_seconds() - began) / requests)
