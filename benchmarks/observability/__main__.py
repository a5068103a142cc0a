"""Measurement of the cost of metrics, traces and log lines. ``python -m benchmarks.observability --help``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.load import check_installed, connections_and_streams
from benchmarks.observability.measuring import measure, steps
from benchmarks.observability.page import page, rows
from benchmarks.observability.results import Plan, Results
from benchmarks.observability.services import SHAPES, VARIANTS
from intentctl.output import EXIT_FAILED, EXIT_USAGE, Column, errors, fail, print_table
from peers.programs import ROOT

_USUAL: Final = Plan()
_QUICK: Final = Plan(starts=1, rounds=1, seconds=0.5)
_PAGE: Final = ROOT / "docs" / "observability-cost.md"
_VARIANTS: Final = {variant.name: variant for variant in VARIANTS}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def observability(
    *,
    starts: Annotated[
        int | None, typer.Option(min=1, help=f"Number of starts of all services. [{_USUAL.starts}]")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help=f"Number of rounds after each start. [{_USUAL.rounds}]")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, max=60.0, help=f"Length of each measurement, in seconds. [{_USUAL.seconds:g}]"),
    ] = None,
    in_flight: Annotated[
        int | None, typer.Option(min=1, help=f"Number of requests in flight. [{_USUAL.in_flight}]")
    ] = None,
    shapes: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help=f"Shapes of the services: {', '.join(SHAPES)}. [all]")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help=f"Variants, by what is switched on: {', '.join(_VARIANTS)}. [all]"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One start, one round of half a second.")] = False,
    json: Annotated[Path | None, typer.Option(dir_okay=False, help="Write all figures to this file.")] = None,
    from_json: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Measure nothing; read the figures from such a file."),
    ] = None,
    write_docs: Annotated[bool, typer.Option("--write-docs", help=f"Write docs/{_PAGE.name}.")] = False,
) -> None:
    """Measure the cost of metrics, traces and log lines in throughput.

    Exit code 0: the target is reached in every measured shape; 1: the target is missed; 2: wrong usage, or h2load is
    missing.
    """
    if from_json is not None:
        results = Results.from_json(from_json.read_bytes())
    else:
        base = _QUICK if quick else _USUAL
        plan = Plan(starts or base.starts, rounds or base.rounds, seconds or base.seconds, in_flight or base.in_flight)
        results = _measured(plan, _chosen([*SHAPES], shapes, "--shapes"), _chosen([*_VARIANTS], only, "--only"))
    if json is not None:
        json.write_bytes(results.to_json())
    if write_docs:
        _PAGE.write_text(page(results))
    columns = [Column("shape"), Column("on"), Column("throughput"), Column("processor time"), Column("")]
    print_table(columns, [(shape, *row) for shape in results.pairs for row in rows(results, shape)])
    raise typer.Exit(EXIT_FAILED if results.missed() else 0)


def _measured(plan: Plan, shapes: Sequence[str], variants: Sequence[str]) -> Results:
    try:
        check_installed()
        connections_and_streams(plan.in_flight)
    except (FileNotFoundError, ValueError) as error:
        fail(str(error), EXIT_USAGE)
    # Raise SystemExit on SIGTERM, so that the harness stops the programs that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with _progress(steps(plan, shapes)) as tell:
        return measure(plan, shapes, [_VARIANTS[name] for name in variants], tell)


def _chosen(known: Sequence[str], names: str | None, option: str) -> list[str]:
    wanted = set(known if names is None else names.split(","))
    unknown = wanted - set(known)
    if unknown:
        fail(f"{option}: there is no {' and no '.join(sorted(unknown))}", EXIT_USAGE)
    return [name for name in known if name in wanted]


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    if not errors.is_terminal:
        yield lambda step: print(step, file=sys.stderr, flush=True)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    # Refresh at each step only: a refresh thread would distort the figures.
    with Progress(*columns, console=errors, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda step: progress.update(task, advance=1, description=step, refresh=True)


if __name__ == "__main__":
    app()
