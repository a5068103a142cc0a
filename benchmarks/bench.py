"""Benchmark of this project against real peers. ``python -m benchmarks.bench --help``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import psutil
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import campaign
from benchmarks.loads.load import check_installed, connections_and_streams
from benchmarks.reports import plots, tables
from benchmarks.reports.report import report
from benchmarks.reports.results import Part, Plan, Results
from benchmarks.reports.targets import missed
from benchmarks.systems.all import TRANSPORTS, Catalog, catalog
from benchmarks.systems.base import Subject
from benchmarks.systems.former import COMMIT, Former
from intentctl.output import EXIT_FAILED, EXIT_USAGE, Column, console, fail, print_error, print_table
from peers.programs import ROOT

_QUICK: Final = Plan(rounds=1, seconds=1.0, levels=(1, 64), tenants=100)
_USUAL: Final = Plan()
_CATALOG: Final = catalog(TRANSPORTS[0], None)
_FORMER_TRANSPORT: Final = Former().transport
_DOCS: Final = ROOT / "docs"
_PAGE: Final = "benchmarks.md"
_LOOK_SECONDS: Final = 1.0
_BUSY_PERCENT: Final = 10.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def bench(
    *,
    rounds: Annotated[
        int | None, typer.Option(min=1, help=f"Number of rounds over all systems. [{_USUAL.rounds}]")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, max=300.0, help=f"Length of each measurement, in seconds. [{_USUAL.seconds:g}]"),
    ] = None,
    in_flight: Annotated[
        str | None,
        typer.Option(metavar="N,N", help=f"Numbers of requests in flight. [{','.join(map(str, _USUAL.levels))}]"),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME", help=f"Systems: {', '.join(_CATALOG.names)}. [the first {len(_CATALOG.usual)}]"
        ),
    ] = None,
    parts: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help=f"Parts to measure: {', '.join(Part)}. [all]")
    ] = None,
    transport: Annotated[
        str, typer.Option(metavar="NAME", help=f"Transport of our services: {', '.join(TRANSPORTS)}.")
    ] = TRANSPORTS[0],
    former: Annotated[
        str | None,
        typer.Option(
            metavar="COMMIT", help=f"Also measure the services of an older commit. [none; {COMMIT} if --only names it]"
        ),
    ] = None,
    former_transport: Annotated[
        str, typer.Option(metavar="NAME", help="Transport of the services of that commit.")
    ] = _FORMER_TRANSPORT,
    quick: Annotated[
        bool, typer.Option("--quick", help="One round of one second with 1 and 64 requests in flight, and 100 tenants.")
    ] = False,
    json: Annotated[Path | None, typer.Option(dir_okay=False, help="Write all figures to this file.")] = None,
    from_json: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Measure nothing; read the figures from such a file."),
    ] = None,
    write_docs: Annotated[bool, typer.Option("--write-docs", help=f"Write docs/{_PAGE} and its plots.")] = False,
) -> None:
    """Measure this project against real peers, and compare the results with the targets.

    Exit code 0: every measured target is reached; 1: a target is missed; 2: wrong usage, or h2load is missing.
    """
    if from_json is not None:
        results = _read(from_json)
    else:
        plan = _plan(_QUICK if quick else _USUAL, rounds, seconds, in_flight, parts)
        if transport not in TRANSPORTS:
            fail(f"--transport: there is no {transport}; choose one of {', '.join(TRANSPORTS)}", EXIT_USAGE)
        known = catalog(transport, None if former is None else Former(former, former_transport))
        results = _measure(plan, _chosen(known, only), transport)
    if json is not None:
        json.write_bytes(results.to_json())
    if write_docs:
        (_DOCS / _PAGE).write_text(report(results))
        plots.draw(results, _DOCS)
    _show(results)
    raise typer.Exit(EXIT_FAILED if missed(results) else 0)


def _plan(base: Plan, rounds: int | None, seconds: float | None, in_flight: str | None, parts: str | None) -> Plan:
    levels = base.levels
    if in_flight is not None:
        try:
            levels = tuple(sorted({int(level) for level in in_flight.split(",")}))
            for level in levels:
                connections_and_streams(level)
        except ValueError as error:
            fail(f"--in-flight: {error}", EXIT_USAGE)
    chosen = base.parts
    if parts is not None:
        try:
            chosen = tuple(dict.fromkeys(map(Part, parts.split(","))))
        except ValueError as error:
            fail(f"--parts: {error}; choose some of {', '.join(Part)}", EXIT_USAGE)
    return replace(base, rounds=rounds or base.rounds, seconds=seconds or base.seconds, levels=levels, parts=chosen)


def _chosen(known: Catalog, only: str | None) -> list[Subject]:
    wanted = None if only is None else set(only.split(","))
    unknown = (wanted or set()) - set(known.names)
    if unknown:
        fail(f"--only: there is no {' and no '.join(sorted(unknown))}", EXIT_USAGE)
    return known.chosen(wanted)


def _read(path: Path) -> Results:
    try:
        return Results.from_json(path.read_bytes())
    except ValueError as error:
        fail(f"--from-json: {path.name} is not what --json writes: {error}", EXIT_USAGE)


def _measure(plan: Plan, systems: list[Subject], transport: str) -> Results:
    try:
        check_installed()
    except FileNotFoundError as error:
        fail(str(error), EXIT_USAGE)
    busy = psutil.cpu_percent(_LOOK_SECONDS)
    if busy > _BUSY_PERCENT:
        print(f"warning: {busy:.0f} % of this machine is busy already; the figures will show it", file=sys.stderr)
    # Raise SystemExit on SIGTERM, so that the harness stops the programs that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with _progress(campaign.steps(plan, systems)) as advance:
        return campaign.run(plan, systems, transport, advance)


@contextmanager
def _progress(total: int) -> Iterator[campaign.Tell]:
    errors = Console(stderr=True)
    if not errors.is_terminal:
        yield lambda step: print(step, file=sys.stderr, flush=True)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    # Refresh at each step only: a refresh thread would distort the figures.
    with Progress(*columns, console=errors, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=total)
        done = -1

        def advance(step: str) -> None:
            nonlocal done
            done += 1
            progress.update(task, completed=done, description=step, refresh=True)

        yield advance


def _show(results: Results) -> None:
    for level in results.plan.levels:
        _print(f"{level:,} in flight", tables.summary(results, level))
    _print(f"{results.plan.connections:,} connections with one request each", tables.many_connections(results))
    _print("batches and many tenants", tables.batches_and_tenants(results))
    _print("targets", tables.targets(results))
    _print("ratios without a bound", tables.further_ratios(results))
    for name, reason in results.missing.items():
        print_error(f"missing: {results.systems[name].title}: {reason}")
    count = len(missed(results))
    verdict = f"[bold red]{tables.MISSED}[/]" if count else f"[green]{tables.REACHED}[/]"
    console.print(verdict, f": {count} targets missed", sep="")


def _print(title: str, table: tables.Table) -> None:
    if not table.rows:
        return
    console.print(title)
    first, *others = table.head
    print_table([Column(first), *(Column(name, right=True) for name in others)], table.rows)


if __name__ == "__main__":
    app()
