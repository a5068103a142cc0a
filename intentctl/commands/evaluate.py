"""``intentctl evaluate``: measure the quality of a model's answers."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intent_serving_client.channels import ChannelOptions
from intentctl.connection import connecting
from intentctl.evaluating import (
    Asking,
    Data,
    Frontend,
    ModelDir,
    OutOfScope,
    Rows,
    SplitOption,
    Timeout,
    out_of_scope_labels,
    percent,
    read_rows,
)
from intentctl.output import EXIT_FAILED, EXIT_USAGE, AsJson, Column, fail, print_error, print_json, print_table
from intentctl.shares import Threshold, share

if TYPE_CHECKING:
    from evaluation.answers import Answers
    from evaluation.evaluation import Evaluation


@connecting
def evaluate(
    model_id: Annotated[str, typer.Argument(help="Id of the model: the name of its folder.", show_default=False)],
    data: Data,
    *,
    model_dir: ModelDir = Path("models"),
    split: SplitOption = None,
    frontend: Frontend = None,
    timeout: Timeout = 30.0,
    threshold: Threshold = None,
    out_of_scope: OutOfScope = None,
    show: Annotated[int, typer.Option(min=0, help="Show the N most frequent mistakes.")] = 10,
    minimum_accuracy: Annotated[
        float | None,
        typer.Option(
            parser=share,
            metavar="SHARE",
            help="Exit with code 1 if the accuracy in scope is lower.",
            show_default=False,
        ),
    ] = None,
    minimum_oos_recall: Annotated[
        float | None,
        typer.Option(
            parser=share,
            metavar="SHARE",
            help="Exit with code 1 if the out-of-scope recall is lower.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write an HTML report; needs jinja2, and matplotlib for plots.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(file_okay=False, help="Write PNG plots to this folder; needs matplotlib.")
    ] = None,
    as_json: AsJson = False,
    connection: ChannelOptions,
) -> None:
    """Measure a model on labelled texts: accuracy, out-of-scope detection, calibration, confusions.

    docs/evaluation.md explains these figures. The exit code is 1 if a minimum is missed.
    """
    if plots is not None:
        _check_installed("matplotlib", "--plots")
    if report is not None:
        _check_installed("jinja2", "--report")
    rows = read_rows(data, split)
    asking = Asking(model_dir, frontend, timeout, threshold, connection)
    answers = asking.answers(model_id, rows.texts)

    from evaluation.evaluation import evaluate as evaluated  # noqa: PLC0415 - imports NumPy, which --help does not need

    outcome = evaluated(rows.rows, answers, out_of_scope_labels(out_of_scope))
    for option, minimum, value in (
        ("--minimum-accuracy", minimum_accuracy, outcome.accuracy_in_scope),
        ("--minimum-oos-recall", minimum_oos_recall, outcome.out_of_scope_recall),
    ):
        if minimum is not None and value is None:
            fail(f"{option}: the data has no rows for this minimum; omit the option, or name other data", EXIT_USAGE)
    if plots is not None:
        _write_plots(outcome, answers, plots)
    if report is not None:
        _write_report(outcome, answers, rows, report)
    if as_json:
        print_json({"model": asking.described(answers), "data": rows.as_dict(), **outcome.as_dict()})
    else:
        _print(outcome, answers, show)
    _hold(outcome, minimum_accuracy, minimum_oos_recall)


def _print(outcome: Evaluation, answers: Answers, show: int) -> None:
    print_table(
        [Column("quantity"), Column("value", right=True, style="bold", whole=True)], [*_quantities(outcome, answers)]
    )
    if show and outcome.confusions:
        print_table(
            [Column("label", whole=True), Column("answer", style="red", whole=True), Column("rows", right=True)],
            [(each.label, each.answer, f"{each.rows}") for each in outcome.confusions[:show]],
        )


def _quantities(outcome: Evaluation, answers: Answers) -> Iterator[tuple[str, str]]:
    yield "rows in scope", f"{outcome.in_scope}"
    yield "rows out of scope", f"{outcome.out_of_scope}"
    if outcome.unknown_labels:
        yield "labels unknown to the model", f"{len(outcome.unknown_labels)}"
        yield "rows with these labels, counted as wrong", f"{sum(outcome.unknown_labels.values())}"
    yield "threshold", "not known" if answers.threshold is None else f"{answers.threshold:.4g}"
    quantities = (
        ("accuracy in scope", outcome.accuracy_in_scope),
        ("accuracy in scope without threshold", outcome.accuracy_in_scope_without_threshold),
        ("accuracy of all rows", outcome.accuracy),
        ("macro F1", outcome.macro_f1),
        ("out-of-scope recall", outcome.out_of_scope_recall),
        ("out-of-scope precision", outcome.out_of_scope_precision),
        ("answered as out of scope", outcome.answered_out_of_scope),
        ("fallen back by the threshold", outcome.fallen_back),
        ("expected calibration error in scope", outcome.expected_calibration_error),
    )
    yield from ((name, percent(value)) for name, value in quantities if value is not None)
    if outcome.in_scope and not outcome.reliability:
        yield "expected calibration error in scope", "the engine returns no probabilities"


def _hold(outcome: Evaluation, minimum_accuracy: float | None, minimum_oos_recall: float | None) -> None:
    """Exit with a failure code if a minimum is missed."""
    missed = [
        f"{name} is {percent(value)}, and {option} {percent(minimum)}"
        for name, option, value, minimum in (
            ("the accuracy in scope", "--minimum-accuracy", outcome.accuracy_in_scope, minimum_accuracy),
            ("the out-of-scope recall", "--minimum-oos-recall", outcome.out_of_scope_recall, minimum_oos_recall),
        )
        if minimum is not None and value is not None and value < minimum
    ]
    for message in missed:
        print_error(message)
    if missed:
        raise typer.Exit(EXIT_FAILED)


def _write_plots(outcome: Evaluation, answers: Answers, folder: Path) -> None:
    from evaluation.plots import draw  # noqa: PLC0415

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in draw(outcome, answers.threshold, "png").items():
            (folder / f"{name}.png").write_bytes(image)
    except OSError as error:
        fail(f"{folder} cannot be written: {error.strerror}")


def _write_report(outcome: Evaluation, answers: Answers, rows: Rows, path: Path) -> None:
    from evaluation.plots import draw  # noqa: PLC0415
    from evaluation.report import html_report  # noqa: PLC0415

    page = html_report(
        outcome,
        model=f"{answers.model_id} {answers.model_version}",
        data=f"{rows}, SHA-256 {rows.sha256}",
        figures=[*_quantities(outcome, answers)],
        plots=draw(outcome, answers.threshold, "svg") if _is_installed("matplotlib") else {},
    )
    try:
        path.write_bytes(page)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}")


def _check_installed(package: str, option: str) -> None:
    if not _is_installed(package):
        fail(f"{option} needs {package}, which is not installed")


def _is_installed(package: str) -> bool:
    return find_spec(package) is not None
