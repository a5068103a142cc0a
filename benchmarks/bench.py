"""Measures this project against real peers. ``python -m benchmarks.bench --help``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import psutil
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import campaign, plots
from benchmarks.load import check_installed, connections_and_streams
from benchmarks.report import report, target_rows, throughput_rows
from benchmarks.results import Plan, Results
from benchmarks.systems.all import NAMED, SYSTEMS
from benchmarks.systems.base import System
from benchmarks.targets import missed
from intentctl.output import EXIT_FAILED, EXIT_USAGE, Column, console, fail, print_table, tell
from peers.programs import ROOT

_QUICK: Final = Plan(rounds=1, seconds=1.0, levels=(1, 64), tenants=100)
_USUAL: Final = Plan()
_DOCS: Final = ROOT / "docs"
_PAGE: Final = "benchmarks.md"
_LOOK_SECONDS: Final = 1.0
_BUSY_PERCENT: Final = 10.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def bench(
    *,
    rounds: Annotated[int | None, typer.Option(min=1, help=f"Rounds over all systems. [{_USUAL.rounds}]")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, max=300.0, help=f"Length of each measurement. [{_USUAL.seconds:g}]")
    ] = None,
    in_flight: Annotated[
        str | None,
        typer.Option(metavar="N,N", help=f"Requests in flight. [{','.join(map(str, _USUAL.levels))}]"),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help=f"Systems: {', '.join(NAMED)}. [{len(SYSTEMS)} first]"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One round of one second at 1 and 64 in flight, and 100 tenants.")
    ] = False,
    json: Annotated[Path | None, typer.Option(dir_okay=False, help="Write all figures to this file.")] = None,
    from_json: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Measure nothing: take the figures from such a file."),
    ] = None,
    write_docs: Annotated[bool, typer.Option("--write-docs", help=f"Write docs/{_PAGE} and its plots.")] = False,
) -> None:
    """Measure this project against real peers, and compare with the targets.

    Exit code 0: every target that was measured is reached; 1: one is missed; 2: called wrongly, or h2load is missing.
    """
    if from_json is not None:
        results = _read(from_json)
    else:
        plan = _plan(_QUICK if quick else _USUAL, rounds, seconds, in_flight)
        results = _measure(plan, _systems(only))
    if json is not None:
        json.write_bytes(results.to_json())
    if write_docs:
        (_DOCS / _PAGE).write_text(report(results))
        plots.draw(results, _DOCS)
    _show(results)
    raise typer.Exit(EXIT_FAILED if missed(results) else 0)


def _plan(base: Plan, rounds: int | None, seconds: float | None, in_flight: str | None) -> Plan:
    levels = base.levels
    if in_flight is not None:
        try:
            levels = tuple(sorted({int(level) for level in in_flight.split(",")}))
            for level in levels:
                connections_and_streams(level)
        except ValueError as error:
            fail(f"--in-flight: {error}", EXIT_USAGE)
    return Plan(rounds or base.rounds, seconds or base.seconds, levels, base.tenants)


def _systems(only: str | None) -> list[System]:
    if only is None:
        return list(SYSTEMS)
    wanted = set(only.split(","))
    unknown = wanted - set(NAMED)
    if unknown:
        fail(f"--only: there is no {' and no '.join(sorted(unknown))}", EXIT_USAGE)
    return [system for name, system in NAMED.items() if name in wanted]


def _read(path: Path) -> Results:
    try:
        return Results.from_json(path.read_bytes())
    except ValueError as error:
        fail(f"--from-json: {path.name} is not what --json writes: {error}", EXIT_USAGE)


def _measure(plan: Plan, systems: list[System]) -> Results:
    try:
        check_installed()
    except FileNotFoundError as error:
        fail(str(error), EXIT_USAGE)
    busy = psutil.cpu_percent(_LOOK_SECONDS)
    if busy > _BUSY_PERCENT:
        print(f"warning: {busy:.0f} % of this machine is busy already; the figures will show it", file=sys.stderr)
    # The programs under way are ended when the harness is, however it is asked to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with _progress(campaign.steps(plan, systems)) as advance:
        return campaign.run(plan, systems, advance)


@contextmanager
def _progress(total: int) -> Iterator[campaign.Tell]:
    errors = Console(stderr=True)
    if not errors.is_terminal:
        yield lambda step: print(step, file=sys.stderr, flush=True)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    # Drawn at each step only: a thread that draws takes part in the figures.
    with Progress(*columns, console=errors, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=total)
        done = -1

        def advance(step: str) -> None:
            nonlocal done
            done += 1
            progress.update(task, completed=done, description=step, refresh=True)

        yield advance


def _show(results: Results) -> None:
    console.print("requests/s by requests in flight")
    levels = [Column(f"{level:,}", right=True) for level in results.plan.levels]
    print_table([Column("system"), Column("hops", right=True), *levels], throughput_rows(results))
    console.print("targets")
    verdicts = {"reached": "[green]reached[/]", "MISSED": "[bold red]MISSED[/]"}
    columns = [Column("ratio"), Column("wanted"), Column("median", right=True), Column("least to most"), Column("")]
    print_table(columns, target_rows(results))
    for name, reason in results.missing.items():
        tell(f"missing: {results.systems[name].title}: {reason}")
    count = len(missed(results))
    console.print(verdicts["MISSED" if count else "reached"], f": {count} targets missed", sep="")


if __name__ == "__main__":
    app()
