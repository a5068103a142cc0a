"""``intentctl predict``: ask a running frontend."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import typer

from intentctl.output import EXIT_FAILED, EXIT_UNAVAILABLE, AsJson, Column, fail, print_json, print_table, tell
from serving.client import DEFAULT_ADDRESS, IntentClient, Outcome, Query, ServingError
from serving.errors import DeadlineExceeded, InvalidRequest, OutOfCapacity, Unavailable, status_of

_STANDARD_INPUT: Final = "-"
_BATCH: Final = 256
# A quarter of what a message may have: a character takes up to four bytes.
_BATCH_CHARACTERS: Final = 1 << 18


def predict(
    model_id: Annotated[str, typer.Argument(help="The model's id: the name of its folder.", show_default=False)],
    documents: Annotated[
        list[str], typer.Argument(help="Texts to classify; - reads one a line from standard input.", show_default=False)
    ],
    *,
    k: Annotated[int, typer.Option("-k", min=0, help="Show the k best labels of each.")] = 0,
    address: Annotated[str, typer.Option(help="Where the frontend listens.")] = DEFAULT_ADDRESS,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that a call may take.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Classify texts with a model of a running frontend."""
    texts = _lines_of_standard_input() if documents == [_STANDARD_INPUT] else documents
    try:
        with IntentClient(address, timeout=timeout) as client:
            outcomes = [
                outcome
                for batch in _batches([Query(model_id, text, k) for text in texts])
                for outcome in _outcomes(client, batch)
            ]
    except (Unavailable, DeadlineExceeded) as error:
        fail(f"no answer from {address}: {error} (is it running? `intentctl up` starts it)", EXIT_UNAVAILABLE)
    except ServingError as error:
        fail(str(error))
    if as_json:
        print_json([_as_json(text, outcome) for text, outcome in zip(texts, outcomes, strict=True)])
    else:
        _print_table(texts, outcomes)
    _end_by(outcomes)


def _lines_of_standard_input() -> list[str]:
    """Return the lines; what is not UTF-8 in one of them is refused with that line, not with all."""
    return [line.decode("utf-8", "surrogateescape").rstrip("\r\n") for line in sys.stdin.buffer]


def _batches(queries: Sequence[Query]) -> Iterator[list[Query]]:
    """Yield the queries in order, in batches that a frontend takes."""
    batch: list[Query] = []
    characters = 0
    for query in queries:
        if batch and (len(batch) >= _BATCH or characters + len(query.document) > _BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(query)
        characters += len(query.document)
    if batch:
        yield batch


def _outcomes(client: IntentClient, batch: Sequence[Query]) -> Sequence[Outcome]:
    """Ask a batch; where it is refused as a whole, its halves: one bad document must not cost the others theirs."""
    try:
        return client.predict_batch(batch)
    except (InvalidRequest, OutOfCapacity) as error:
        if len(batch) == 1:
            return [error]
    middle = len(batch) // 2
    return [*_outcomes(client, batch[:middle]), *_outcomes(client, batch[middle:])]


def _end_by(outcomes: Sequence[Outcome]) -> None:
    """End with a code of failure if any document has no answer."""
    failed = [outcome for outcome in outcomes if isinstance(outcome, ServingError)]
    if failed:
        waiting = all(isinstance(error, Unavailable | DeadlineExceeded) for error in failed)
        raise typer.Exit(EXIT_UNAVAILABLE if waiting else EXIT_FAILED)


def _as_json(text: str, outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, ServingError):
        status = status_of(outcome)
        return {"document": text, "error": {"code": status.code.name, "message": status.message}}
    return {
        "document": text,
        "label": outcome.label,
        "score": outcome.score,
        "best": [{"label": best.label, "score": best.score} for best in outcome.best],
        "model": {"id": outcome.model_id, "version": outcome.model_version},
    }


def _print_table(texts: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    rows: list[Sequence[str]] = []
    for text, outcome in zip(texts, outcomes, strict=True):
        if isinstance(outcome, ServingError):
            tell(f"{status_of(outcome).code.name}: {outcome}")
            continue
        rows.append((text, outcome.label, f"{outcome.score:.3f}"))
        rows += [("", best.label, f"{best.score:.3f}") for best in outcome.best[1:]]
    if rows:
        print_table([Column("document"), Column("label", style="bold green"), Column("score", right=True)], rows)
