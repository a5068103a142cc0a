"""Answers to texts as people type them, with normalization and without: ``python -m benchmarks.quality.typed``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from evaluation.metrics import accuracy
from intentctl.output import EXIT_USAGE, Column, fail, print_table
from peers.programs import ROOT
from predictor.model.intent_model import IntentModel
from predictor.model.loader import FileLimits, Loader
from serving.domain.model_id import parse_model_id
from serving.domain.prediction import Prediction, Query
from serving.volume.model_store import ModelStore
from training.data import OUT_OF_SCOPE, Example
from training.readers import read_data

_ZERO_WIDTH_SPACE: Final = "\u200b"
_FULL_WIDTH: Final = {code: code + 0xFEE0 for code in range(ord("!"), ord("~") + 1)} | {ord(" "): 0x3000}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def curly(text: str) -> str:
    """Return ``text`` with the apostrophe that phones write."""
    return text.replace("'", "\u2019")


def full_width(text: str) -> str:
    """Return ``text`` as an East Asian keyboard in its full-width mode writes it."""
    return text.translate(_FULL_WIDTH)


def zero_width(text: str) -> str:
    """Return ``text`` with a zero-width space in the middle of each word of four letters or more."""
    return " ".join(
        word if len(word) < 4 else word[: len(word) // 2] + _ZERO_WIDTH_SPACE + word[len(word) // 2 :]
        for word in text.split(" ")
    )


@app.command()
def typed(
    without: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Folder of a model without +normalized.")
    ],
    with_it: Annotated[
        Path, typer.Argument(metavar="WITH", exists=True, file_okay=False, help="Folder of a model with it.")
    ],
    *,
    shared: Annotated[
        Path, typer.Option(envvar="INTENT_SHARED", file_okay=False, help="Folder with the data sets.")
    ] = ROOT.parent / "shared",
) -> None:
    """Measure two models of CLINC150 on its test texts in scope, as they are and as people type them."""
    path = shared / "datasets/clinc150/data_full.json"
    if not path.is_file():
        fail("there is no CLINC150 in --shared (or INTENT_SHARED)", EXIT_USAGE)
    rows = [row for row in read_data(path).test if row.label != OUT_OF_SCOPE]
    quoted = [row for row in rows if "'" in row.text]
    models = [_loaded(folder) for folder in (without, with_it)]
    variants: Sequence[tuple[str, Sequence[Example], Callable[[str], str]]] = (
        ("as they are", rows, str),
        ("with an apostrophe, as they are", quoted, str),
        ("with an apostrophe, curly", quoted, curly),
        ("full-width", rows, full_width),
        ("zero-width spaces", rows, zero_width),
    )
    print_table(
        [Column("texts"), Column("number", right=True), Column("without", right=True), Column("with", right=True)],
        [
            (name, str(len(chosen)), *(f"{_accuracy(model, chosen, change):.2%}" for model in models))
            for name, chosen, change in variants
        ],
    )


def _loaded(folder: Path) -> IntentModel:
    model_id = parse_model_id(folder.name)
    loader = Loader(ModelStore(folder.resolve().parent), FileLimits())
    return loader.load(model_id, loader.fingerprint(model_id))


def _accuracy(model: IntentModel, rows: Sequence[Example], change: Callable[[str], str]) -> float:
    answers = model.predict([Query(model.model_id, change(row.text)) for row in rows])
    given = [answer.label for answer in answers if isinstance(answer, Prediction)]
    return accuracy([row.label for row in rows], given)


if __name__ == "__main__":
    app()
