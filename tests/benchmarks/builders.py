"""Results as a run would leave them."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.load import Latency
from benchmarks.results import About, LevelFigures, Machine, Plan, Results, SystemFigures


def figures(rate: float, milliseconds: float = 1.0, *, level: int = 64) -> SystemFigures:
    latency = Latency(mean=milliseconds, p50=milliseconds, p90=2 * milliseconds, p99=3 * milliseconds)
    return SystemFigures({level: LevelFigures(rate, latency, 1e6 / rate)}, memory_mebibytes=100.0)


def results(*rounds: Mapping[str, SystemFigures], missing: Mapping[str, str] | None = None) -> Results:
    names = list(dict.fromkeys(name for figures_of_round in rounds for name in figures_of_round))
    return Results(
        day="2026-01-31",
        machine=Machine("a processor", 2, 4.0, "a system", "3.11.0"),
        plan=Plan(rounds=len(rounds), levels=(64,)),
        systems={name: About(f"the {name}", 1) for name in [*names, *(missing or {})]},
        rounds=[dict(figures_of_round) for figures_of_round in rounds],
        missing=dict(missing or {}),
    )
