"""Rounds over all systems, one system at a time, so that drift of the machine affects all systems alike."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import SubprocessError

from benchmarks.calls import WrongAnswer
from benchmarks.clients import ClientFailed
from benchmarks.load import NotUnderstood
from benchmarks.many_bodies import BrokenConnection
from benchmarks.measuring import measure
from benchmarks.results import About, Machine, Part, Plan, Results
from benchmarks.systems.base import Subject, System
from benchmarks.tenant_load import Tenants
from peers.environments import CannotInstall
from peers.programs import ProgramEnded

Tell = Callable[[str], None]
"""Called once for each step, with a description of the step that starts."""


def steps(plan: Plan, systems: Sequence[Subject]) -> int:
    """Return the number of steps that :func:`run` reports."""
    return len(systems) * (1 + plan.rounds)


def run(plan: Plan, systems: Sequence[Subject], transport: str, tell: Tell) -> Results:
    """Install all systems, then measure each in each round. Skip a system after a failure, and record the reason.

    Every second round runs in reverse order, so that no system always follows the same other system.
    """
    results = Results(
        day=dt.datetime.now(tz=dt.UTC).date().isoformat(),
        machine=Machine.this(),
        plan=plan,
        systems={system.name: About(system.title, system.hops, system.kind) for system in systems},
        transport=transport,
    )
    for system in systems:
        tell(f"install {system.title}")
        try:
            system.install()
        except CannotInstall as error:
            results.missing[system.name] = str(error)
    with tempfile.TemporaryDirectory(prefix="intent-bench-", ignore_cleanup_errors=True) as folder:
        wanted = Part.TENANTS in plan.parts and any(
            isinstance(system, System) and Part.TENANTS in system.parts for system in systems
        )
        tenants = Tenants.make(Path(folder), plan.tenants) if wanted else None
        for number in range(1, plan.rounds + 1):
            results.rounds.append({})
            for system in systems if number % 2 else reversed(systems):
                tell(f"round {number} of {plan.rounds}: {system.title}")
                if system.name not in results.missing:
                    _measure(system, tenants, results)
    return results


def _measure(system: Subject, tenants: Tenants | None, results: Results) -> None:
    try:
        results.rounds[-1][system.name] = measure(system, results.plan, tenants)
    except (
        ProgramEnded,
        WrongAnswer,
        NotUnderstood,
        ClientFailed,
        BrokenConnection,
        OSError,
        SubprocessError,
    ) as error:
        results.missing[system.name] = f"round {len(results.rounds)}: {error}"
