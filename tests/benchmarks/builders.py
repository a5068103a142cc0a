"""Builders of results in the form in which a run leaves them."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.load import Latency
from benchmarks.results import About, Kind, LevelFigures, Machine, Plan, Results, SystemFigures

OURS = {"two-processes", "one-process"}


def figures(rate: float, milliseconds: float = 1.0, *, level: int = 64) -> SystemFigures:
    return SystemFigures({level: level_figures(rate, milliseconds)}, memory_mebibytes=100.0)


def level_figures(rate: float, milliseconds: float = 1.0) -> LevelFigures:
    latency = Latency(mean=milliseconds, p50=milliseconds, p90=2 * milliseconds, p99=3 * milliseconds)
    return LevelFigures(rate, latency, 1e6 / rate)


def results(*rounds: Mapping[str, SystemFigures], missing: Mapping[str, str] | None = None) -> Results:
    names = list(dict.fromkeys(name for figures_of_round in rounds for name in figures_of_round))
    return Results(
        day="2026-01-31",
        machine=Machine("a processor", 2, 4.0, "a system", "3.11.0"),
        plan=Plan(rounds=len(rounds), levels=(64,)),
        systems={name: About(f"the {name}", 1, kind_of(name)) for name in [*names, *(missing or {})]},
        transport="http2",
        rounds=[dict(figures_of_round) for figures_of_round in rounds],
        missing=dict(missing or {}),
    )


def kind_of(name: str) -> Kind:
    if name.startswith("client"):
        return Kind.CLIENT
    if name in OURS:
        return Kind.OURS
    return Kind.VARIANT if name.startswith(tuple(f"{ours}-" for ours in OURS)) else Kind.PEER
