"""Training and measurement of models with several seeds. ``python -m benchmarks.quality --help``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.quality.data_sets import DATA_SETS, DataSetPlan
from benchmarks.quality.few_page import kept_from
from benchmarks.quality.measuring import Training, measure, train
from benchmarks.quality.page import page, target_rows
from benchmarks.quality.plots import draw
from benchmarks.quality.results import DataSetRuns, Run, read, written
from benchmarks.reports.results import Machine
from intentctl.output import EXIT_FAILED, EXIT_USAGE, Column, console, errors, fail, print_table
from peers.programs import ROOT

_DOCS: Final = ROOT / "docs"
_PAGE: Final = "quality.md"
# Each training uses one processor.
_TRAININGS_AT_ONCE: Final = 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def quality(
    *,
    seeds: Annotated[int, typer.Option(min=1, help="Train each model with the seeds 0 to N-1.")] = 5,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME", help=f"Data and recipes: {', '.join(plan.name for plan in DATA_SETS)}. [all]"
        ),
    ] = None,
    shared: Annotated[
        Path, typer.Option(envvar="INTENT_SHARED", file_okay=False, help="Folder with the data sets.")
    ] = ROOT.parent / "shared",
    json: Annotated[Path | None, typer.Option(dir_okay=False, help="Write all figures to this file.")] = None,
    from_json: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True, dir_okay=False, help="Measure nothing; read the figures from such a file. May be repeated."
        ),
    ] = None,
    write_docs: Annotated[bool, typer.Option("--write-docs", help=f"Write docs/{_PAGE} and its plot.")] = False,
) -> None:
    """Train models with several seeds, and measure them on the test splits.

    Exit code 0: every target is reached; 1: a target is missed; 2: wrong usage, or a data set is missing.
    """
    found = _known(from_json) if from_json else _measured(_plans(only), seeds, shared)
    if json is not None:
        json.write_bytes(written(found))
    if write_docs:
        path = _DOCS / _PAGE
        path.write_text(f"{page(found, Machine.this())}\n{kept_from(path.read_text())}".rstrip() + "\n")
        draw(found, _DOCS)
    rows = target_rows(found)
    print_table([Column("data"), Column("what"), Column("wanted"), Column("mean (least to most)"), Column("")], rows)
    missed = sum(bool(row[-1]) for row in rows)
    console.print(f"{missed} of {len(rows)} targets missed", highlight=False)
    raise typer.Exit(EXIT_FAILED if missed else 0)


def _known(files: Sequence[Path]) -> list[DataSetRuns]:
    order = [plan.name for plan in DATA_SETS]
    return sorted((runs for file in files for runs in read(file.read_bytes())), key=lambda runs: order.index(runs.name))


def _plans(only: str | None) -> list[DataSetPlan]:
    if only is None:
        return list(DATA_SETS)
    wanted = set(only.split(","))
    unknown = wanted - {plan.name for plan in DATA_SETS}
    if unknown:
        fail(f"--only: there is no {' and no '.join(sorted(unknown))}", EXIT_USAGE)
    return [plan for plan in DATA_SETS if plan.name in wanted]


def _measured(plans: list[DataSetPlan], seeds: int, shared: Path) -> list[DataSetRuns]:
    for plan in plans:
        if not plan.path(shared).is_file():
            fail(f"there is no {plan.file} in --shared (or INTENT_SHARED)", EXIT_USAGE)
    with (
        _progress(2 * len(plans) * seeds) as advance,
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(_TRAININGS_AT_ONCE) as pool,
    ):

        def trained(plan: DataSetPlan, seed: int) -> Training:
            training = train(plan.path(shared), plan.all_options(shared), seed, Path(folder) / f"{plan.name}-{seed}")
            advance(f"trained {plan.name}, seed {seed}")
            return training

        under_way = [[pool.submit(trained, plan, seed) for seed in range(seeds)] for plan in plans]
        # Finish all trainings before the first measurement, so that nothing else runs during measurements.
        trainings = [[each.result() for each in of_plan] for of_plan in under_way]
        found: list[DataSetRuns] = []
        for plan, of_plan in zip(plans, trainings, strict=True):
            test = plan.test(shared)
            runs: list[Run] = []
            for training in of_plan:
                runs.append(measure(training, test))
                advance(f"measured {plan.name}, seed {training.seed}")
            found.append(DataSetRuns(plan.title, plan.name, tuple(runs)))
    return found


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    if not errors.is_terminal:
        yield lambda step: print(step, file=sys.stderr, flush=True)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda step: progress.update(task, advance=1, description=step)


if __name__ == "__main__":
    app()
