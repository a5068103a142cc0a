"""``intentctl predict``: send texts to a running frontend."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Annotated, Final

import typer

from intent_serving_client.channels import ChannelOptions
from intent_serving_client.client import IntentClient
from intent_serving_client.client_base import DEFAULT_ADDRESS
from intent_serving_client.text_files import without_mark
from intentctl.connection import LONGER, connecting, fail_unanswered, is_out_of_time
from intentctl.explanations.account import Account, accounts_of
from intentctl.explanations.terminal import UNKNOWN_MARK, marked
from intentctl.output import (
    EXIT_FAILED,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    AsJson,
    Column,
    console,
    fail,
    print_error,
    print_json,
    print_table,
)
from intentctl.pipelines.paths import path_text, steps_of
from intentctl.predictions import as_dict
from intentctl.shares import Threshold
from serving.domain.errors import DeadlineExceeded, InvalidConnection, ServingError, Unavailable, status_of
from serving.domain.explanation import Explanation
from serving.domain.prediction import Outcome, Prediction, Query
from serving.telemetry.foreign_text import shown
from serving.wire.batches import outcomes_in_batches

_STANDARD_INPUT: Final = "-"


@connecting
def predict(
    model_id: Annotated[str, typer.Argument(help="Id of the model: the name of its folder.", show_default=False)],
    documents: Annotated[
        list[str],
        typer.Argument(help="Texts to classify; - reads one per line from standard input.", show_default=False),
    ],
    *,
    k: Annotated[int, typer.Option("-k", min=0, help="Show the k best labels of each text.")] = 0,
    threshold: Threshold = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what each word adds to the best label; `explain` shows more.")
    ] = False,
    path: Annotated[bool, typer.Option("--path", help="Show the steps that led to the answers of a pipeline.")] = False,
    frontend: Annotated[str, typer.Option(metavar="HOST:PORT", help="Address of the frontend.")] = DEFAULT_ADDRESS,
    timeout: Annotated[float, typer.Option(min=0.001, help="Time limit of a call, in seconds.")] = 10.0,
    as_json: AsJson = False,
    connection: ChannelOptions,
) -> None:
    """Classify texts with a model of a running frontend.

    If the score of the best label is below the threshold, the answer is the model's fallback label, and the best label
    is shown beside it.
    """
    texts = _lines_of_standard_input() if documents == [_STANDARD_INPUT] else documents
    queries = [Query(model_id, text, k, threshold, () if explain else None) for text in texts]
    try:
        with IntentClient(frontend, timeout=timeout, options=connection) as client:
            outcomes = [outcome for batch in outcomes_in_batches(client, queries) for outcome in batch]
    except InvalidConnection as error:
        fail(str(error), EXIT_USAGE)
    except (Unavailable, DeadlineExceeded) as error:
        fail_unanswered(frontend, error, connection)
    except ServingError as error:
        fail(str(error))
    if as_json:
        print_json([_as_dict(text, outcome) for text, outcome in zip(texts, outcomes, strict=True)])
    else:
        _print_table(texts, outcomes, with_paths=path)
    _end_by(outcomes)


def _lines_of_standard_input() -> list[str]:
    """Return the lines of standard input; invalid UTF-8 is kept, so that only the line with it is refused."""
    lines = list(sys.stdin.buffer)
    return [
        line.decode("utf-8", "surrogateescape").rstrip("\r\n") for line in (*map(without_mark, lines[:1]), *lines[1:])
    ]


def _end_by(outcomes: Sequence[Outcome]) -> None:
    """Exit with a failure code if any document has no answer."""
    failed = [outcome for outcome in outcomes if isinstance(outcome, ServingError)]
    if failed:
        waiting = all(isinstance(error, Unavailable | DeadlineExceeded) for error in failed)
        raise typer.Exit(EXIT_UNAVAILABLE if waiting else EXIT_FAILED)


def _as_dict(text: str, outcome: Outcome) -> dict[str, object]:
    answer = as_dict(text, outcome)
    if isinstance(outcome, Prediction) and outcome.explanation is not None:
        answer["explanation"] = outcome.explanation.as_dict()
    return answer


def _print_table(texts: Sequence[str], outcomes: Sequence[Outcome], *, with_paths: bool) -> None:
    answered: list[tuple[str, Prediction]] = []
    for text, outcome in zip(texts, outcomes, strict=True):
        if isinstance(outcome, ServingError):
            advice = f"; {LONGER}" if is_out_of_time(outcome) else ""
            print_error(f"{status_of(outcome).code.name}: {outcome}{advice}")
        else:
            answered.append((text, outcome))
    # Omit columns that would be empty.
    more = [
        (column, cells)
        for column, cells in (
            (Column("instead of", whole=True), _instead_of),
            (Column("words"), _words),
            (Column("path"), _path if with_paths else _nothing),
        )
        if any(any(cells(prediction)) for _, prediction in answered)
    ]
    rows: list[Sequence[str]] = []
    for text, prediction in answered:
        best = ((prediction.label, prediction.score), *prediction.best[1:])
        labels, scores = (label for label, _ in best), (f"{score:.3f}" for _, score in best)
        rows += zip_longest([text], labels, scores, *(cells(prediction) for _, cells in more), fillvalue="")
    columns = [Column("document"), Column("label", style="bold green", whole=True), Column("score", right=True)]
    if rows:
        print_table([*columns, *(column for column, _ in more)], rows)
    for text, prediction in answered:
        if prediction.explanation is not None and console.is_terminal:
            console.print(marked(_account(prediction, prediction.explanation), text), highlight=False, soft_wrap=True)


def _instead_of(prediction: Prediction) -> Sequence[str]:
    """Return the best label and the reason for the fallback; empty if the answer did not fall back."""
    fallback = prediction.fallback
    return [f"{fallback.best.label} ({fallback.best.score:.3f} < {fallback.threshold:g})"] if fallback else []


def _path(prediction: Prediction) -> Sequence[str]:
    """Return the steps, one in a row; scripts read them in the line of their document."""
    return steps_of(prediction.path) if console.is_terminal else [path_text(prediction.path)]


def _nothing(_: Prediction) -> Sequence[str]:
    return []


def _words(prediction: Prediction) -> Sequence[str]:
    """Return what each word adds to the best label, if requested; empty on a terminal, which shows colours instead."""
    if prediction.explanation is None or console.is_terminal:
        return []
    account = _account(prediction, prediction.explanation)
    words = (
        f"{UNKNOWN_MARK}{shown(word.text)}{UNKNOWN_MARK}{word.adds:+z.3f}"
        if word.is_unknown
        else f"{shown(word.text)}{word.adds:+z.3f}"
        for word in account.words
    )
    return [" ".join(words)]


def _account(prediction: Prediction, explanation: Explanation) -> Account:
    return accounts_of(prediction, explanation)[0]
