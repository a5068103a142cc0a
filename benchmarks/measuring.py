"""One system in one round: started, verified, warmed up, measured at every level, stopped."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.calls import Call
from benchmarks.load import Timed, timed
from benchmarks.process_figures import cpu_seconds, memory_mebibytes
from benchmarks.results import LevelFigures, Plan, SystemFigures
from benchmarks.systems.base import Running, System
from benchmarks.systems.ours import Ours
from benchmarks.tenant_load import TenantFigures, Tenants, measure_tenants

_WARM_UP_IN_FLIGHT: Final = 64
_WARM_UP_OF_LEVEL: Final = 0.1
_GROWTH: Final = 4


def measure(system: System, plan: Plan, tenants: Tenants | None) -> SystemFigures:
    """Return the figures of a round.

    Args:
        system: what is measured.
        plan: how.
        tenants: for systems of ours, a volume of many tenants; ``None`` leaves that out.

    Raises:
        ProgramEnded: it ended by itself.
        WrongAnswer: an answer was not the one that is due.
        NotUnderstood: h2load failed.
    """
    with _workplace() as workplace, system.start(workplace) as running:
        # A short plan is a look at whether all works, not a figure for a table.
        _warm_up(running.predict, _WARM_UP_IN_FLIGHT, min(system.warm_up_seconds, 5 * plan.seconds), workplace)
        levels = {
            in_flight: _level(running, running.predict, in_flight, plan.seconds, workplace) for in_flight in plan.levels
        }
        batches = None
        if running.batch is not None:
            level = _level(running, running.batch, plan.batch_in_flight, plan.seconds, workplace)
            batches = level.requests_per_second * running.batch.documents
        taken = memory_mebibytes(running.processes)
    figures: TenantFigures | None = None
    if tenants is not None and isinstance(system, Ours):
        with _workplace() as workplace:
            figures = measure_tenants(system, tenants, seconds=plan.seconds, workplace=workplace)
    return SystemFigures(
        levels,
        taken,
        batches,
        one_tenant_per_second=figures.one if figures else None,
        many_tenants_per_second=figures.many if figures else None,
    )


def _level(running: Running, call: Call, in_flight: int, seconds: float, workplace: Path) -> LevelFigures:
    rate = _warm_up(call, in_flight, seconds * _WARM_UP_OF_LEVEL, workplace).requests_per_second
    requests = max(2 * in_flight, math.ceil(rate * seconds))
    before = cpu_seconds(running.processes)
    run = timed(call, in_flight=in_flight, requests=requests, workplace=workplace)
    taken = cpu_seconds(running.processes) - before
    return LevelFigures(run.requests_per_second, run.latency, taken / requests * 1e6)


def _warm_up(call: Call, in_flight: int, seconds: float, workplace: Path) -> Timed:
    """Ask until a run took ``seconds``; return it."""
    requests = max(in_flight, 8)
    while True:
        run = timed(call, in_flight=in_flight, requests=requests, workplace=workplace)
        if run.seconds >= seconds:
            return run
        requests = min(_GROWTH * requests, max(math.ceil(1.2 * run.requests_per_second * seconds), requests + 1))


@contextmanager
def _workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="intent-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
