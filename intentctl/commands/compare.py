"""``intentctl compare``: determine which of two models answers better."""

from __future__ import annotations

from collections.abc import Iterator
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
    SplitOption,
    Timeout,
    out_of_scope_labels,
    percent,
    read_rows,
)
from intentctl.output import EXIT_FAILED, AsJson, Column, print_json, print_table
from intentctl.shares import Threshold

if TYPE_CHECKING:
    from evaluation.comparison import Comparison, Difference


@connecting
def compare(
    a: Annotated[str, typer.Argument(help="Id of the first model, such as the one that serves.", show_default=False)],
    b: Annotated[str, typer.Argument(help="Id of the second model, such as a candidate.", show_default=False)],
    data: Data,
    *,
    model_dir: ModelDir = Path("models"),
    split: SplitOption = None,
    frontend: Frontend = None,
    timeout: Timeout = 30.0,
    threshold: Threshold = None,
    out_of_scope: OutOfScope = None,
    show: Annotated[int, typer.Option(min=0, help="Show N labels and N texts on which the models differ.")] = 10,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit with code 1 if B is significantly worse.")
    ] = False,
    as_json: AsJson = False,
    connection: ChannelOptions,
) -> None:
    """Compare two models on the same labelled texts: agreement, wins, losses, McNemar's test.

    docs/evaluation.md explains these figures.
    """
    rows = read_rows(data, split)
    asking = Asking(model_dir, frontend, timeout, threshold, connection)
    first = asking.answers(a, rows.texts)
    second = asking.answers(b, rows.texts)

    from evaluation.comparison import Verdict  # noqa: PLC0415 - imports NumPy, which --help does not need
    from evaluation.comparison import compare as compared  # noqa: PLC0415

    outcome = compared(rows.rows, first, second, out_of_scope_labels(out_of_scope))
    if as_json:
        models = {"a": asking.described(first), "b": asking.described(second)}
        print_json({**models, "data": rows.as_dict(), **outcome.as_dict()})
    else:
        _print(outcome, a, b, show)
    if fail_if_worse and outcome.verdict is Verdict.WORSE:
        raise typer.Exit(EXIT_FAILED)


def _print(outcome: Comparison, a: str, b: str, show: int) -> None:
    print_table(
        [Column("quantity", whole=True), Column("value", right=True, style="bold")], [*_quantities(outcome, a, b)]
    )
    if show and outcome.labels:
        print_table(
            [
                Column("label", whole=True),
                Column("wins", right=True, style="green"),
                Column("losses", right=True, style="red"),
            ],
            [(each.label, f"{each.wins}", f"{each.losses}") for each in outcome.labels[:show]],
        )
    if show and outcome.differences:
        print_table(
            [
                Column("text"),
                *(Column(name, whole=True) for name in ("label", f"A: {a}", f"B: {b}", "B")),
            ],
            [(each.text, each.label, each.a, each.b, _kind(each)) for each in outcome.differences[:show]],
        )


def _quantities(outcome: Comparison, a: str, b: str) -> Iterator[tuple[str, str]]:
    yield "rows", f"{outcome.rows}"
    yield "same answer", percent(outcome.agreement)
    yield "both right", f"{outcome.both_right}"
    yield f"wins: only B, {b}, is right", f"{outcome.wins}"
    yield f"losses: only A, {a}, is right", f"{outcome.losses}"
    yield "both wrong", f"{outcome.both_wrong}"
    yield "accuracy of A", percent(outcome.accuracy_a)
    yield "accuracy of B", percent(outcome.accuracy_b)
    if outcome.in_scope:
        yield "accuracy in scope of A", percent(outcome.accuracy_in_scope_a)
        yield "accuracy in scope of B", percent(outcome.accuracy_in_scope_b)
    yield "McNemar's test, p", f"{outcome.p_value:.3g}" if outcome.p_value else "below 1e-300"
    yield "verdict", _sentence(outcome)


def _sentence(outcome: Comparison) -> str:
    from evaluation.comparison import SIGNIFICANT, Verdict  # noqa: PLC0415

    if outcome.verdict is Verdict.NO_DIFFERENCE:
        return f"these rows do not show which is better: chance alone does as much (p at least {SIGNIFICANT})"
    return f"B is {outcome.verdict.value}: chance alone would hardly do as much (p below {SIGNIFICANT})"


def _kind(difference: Difference) -> str:
    if difference.label not in (difference.a, difference.b):
        return "both wrong"
    return "win" if difference.b == difference.label else "loss"
