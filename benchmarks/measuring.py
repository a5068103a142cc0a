"""One system in one round: start, verify, warm up, measure every part of the plan, stop."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.calls import Call
from benchmarks.clients import Client, measure_client
from benchmarks.load import CONNECTIONS, Timed, timed
from benchmarks.process_figures import cpu_seconds, memory_mebibytes
from benchmarks.results import LevelFigures, Part, Plan, SystemFigures
from benchmarks.systems.base import Running, Subject, System
from benchmarks.systems.ours import Ours
from benchmarks.tenant_load import TenantFigures, Tenants, measure_tenants

_WARM_UP_IN_FLIGHT: Final = 64
_WARM_UP_OF_LEVEL: Final = 0.1
_WARM_UP_OF_CONNECTIONS: Final = 0.5
_GROWTH: Final = 4


def measure(subject: Subject, plan: Plan, tenants: Tenants | None) -> SystemFigures:
    """Return the figures of a round.

    Args:
        subject: the system or client to measure.
        plan: parts, levels and durations of the measurements.
        tenants: a volume of many tenants, for systems whose parts include them.

    Raises:
        ProgramEnded: a program ended by itself.
        WrongAnswer: an answer was not the expected one.
        NotUnderstood: h2load failed.
        ClientFailed: a client failed.
    """
    if isinstance(subject, Client):
        return measure_client(subject, plan)
    assert isinstance(subject, System)
    return _measure_system(subject, plan, tenants)


def _measure_system(system: System, plan: Plan, tenants: Tenants | None) -> SystemFigures:
    parts = system.parts.intersection(plan.parts)
    levels: dict[int, LevelFigures] = {}
    connections: LevelFigures | None = None
    batches: float | None = None
    with _workplace() as workplace, system.start(workplace) as running:
        load = _Load(running, plan.seconds, workplace)
        # A short plan only checks that everything works, so it needs no full warm-up.
        load.warm_up(running.predict, _WARM_UP_IN_FLIGHT, min(system.warm_up_seconds, 5 * plan.seconds))
        if Part.UNARY in parts:
            levels = {level: load.figures(running.predict, level) for level in system.chosen(plan.levels)}
        if Part.CONNECTIONS in parts:
            connections = load.figures(running.predict, plan.connections, plan.connections)
        if Part.BATCHES in parts and running.batch is not None:
            level = load.figures(running.batch, plan.batch_in_flight)
            batches = level.requests_per_second * running.batch.documents
        taken = memory_mebibytes(running.processes)
    figures: TenantFigures | None = None
    if Part.TENANTS in parts and tenants is not None and isinstance(system, Ours):
        with _workplace() as workplace:
            figures = measure_tenants(system, tenants, seconds=plan.seconds, workplace=workplace)
    return SystemFigures(
        levels,
        taken,
        connections,
        batches,
        one_tenant_per_second=figures.one if figures else None,
        many_tenants_per_second=figures.many if figures else None,
    )


@dataclass(frozen=True, slots=True)
class _Load:
    running: Running
    seconds: float
    workplace: Path

    def figures(self, call: Call, in_flight: int, most_connections: int = CONNECTIONS) -> LevelFigures:
        # Many connections take a while to open, and that time must not lower the estimated rate.
        share = _WARM_UP_OF_CONNECTIONS if most_connections > CONNECTIONS else _WARM_UP_OF_LEVEL
        rate = self.warm_up(call, in_flight, self.seconds * share, most_connections).requests_per_second
        requests = max(2 * in_flight, math.ceil(rate * self.seconds))
        before = cpu_seconds(self.running.processes)
        run = self._timed(call, in_flight, requests, most_connections)
        taken = cpu_seconds(self.running.processes) - before
        return LevelFigures(run.requests_per_second, run.latency, taken / requests * 1e6)

    def warm_up(self, call: Call, in_flight: int, seconds: float, most_connections: int = CONNECTIONS) -> Timed:
        """Repeat runs until one takes at least ``seconds``, and return that run."""
        requests = max(in_flight, 8)
        while True:
            run = self._timed(call, in_flight, requests, most_connections)
            if run.seconds >= seconds:
                return run
            wanted = math.ceil(1.2 * run.requests_per_second * seconds)
            requests = min(_GROWTH * requests, max(wanted, requests + 1))

    def _timed(self, call: Call, in_flight: int, requests: int, most_connections: int) -> Timed:
        return timed(
            call,
            in_flight=in_flight,
            requests=requests,
            workplace=self.workplace,
            most_connections=most_connections,
        )


@contextmanager
def _workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="intent-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
