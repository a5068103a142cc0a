"""Rounds over all systems, one system at a time, so that the machine's drift hits all alike."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import SubprocessError

from benchmarks.calls import WrongAnswer
from benchmarks.load import NotUnderstood
from benchmarks.many_bodies import BrokenConnection
from benchmarks.measuring import measure
from benchmarks.results import About, Machine, Plan, Results
from benchmarks.systems.base import System
from benchmarks.systems.ours import Ours
from benchmarks.tenant_load import Tenants
from peers.environments import CannotInstall
from peers.programs import ProgramEnded

Tell = Callable[[str], None]
"""Told what is done next; called once for each step."""


def steps(plan: Plan, systems: Sequence[System]) -> int:
    """Return how many steps :func:`run` tells of."""
    return len(systems) * (1 + plan.rounds)


def run(plan: Plan, systems: Sequence[System], tell: Tell) -> Results:
    """Install all systems, then measure each in each round. One that fails is left out from there on, and named."""
    results = Results(
        day=dt.datetime.now(tz=dt.UTC).date().isoformat(),
        machine=Machine.this(),
        plan=plan,
        systems={system.name: About(system.title, system.hops) for system in systems},
    )
    for system in systems:
        tell(f"install {system.title}")
        try:
            system.install()
        except CannotInstall as error:
            results.missing[system.name] = str(error)
    with tempfile.TemporaryDirectory(prefix="intent-bench-", ignore_cleanup_errors=True) as folder:
        wanted = any(isinstance(system, Ours) for system in systems)
        tenants = Tenants.make(Path(folder), plan.tenants) if wanted else None
        for number in range(1, plan.rounds + 1):
            results.rounds.append({})
            for system in systems:
                tell(f"round {number} of {plan.rounds}: {system.title}")
                if system.name not in results.missing:
                    _measure(system, tenants, results)
    return results


def _measure(system: System, tenants: Tenants | None, results: Results) -> None:
    try:
        results.rounds[-1][system.name] = measure(system, results.plan, tenants)
    except (ProgramEnded, WrongAnswer, NotUnderstood, BrokenConnection, OSError, SubprocessError) as error:
        results.missing[system.name] = f"round {len(results.rounds)}: {error}"
