"""Answers to texts as people type them, with normalization and without: ``python -m benchmarks.quality.typed``."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from evaluation.metrics import accuracy
from intentctl.output import EXIT_USAGE, Column, fail, print_table
from peers.programs import ROOT
from predictor.model.intent_model import IntentModel
from predictor.model.loader import FileLimits, Loader
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query
from serving.volume.model_store import ModelStore
from training.data import OUT_OF_SCOPE, Example
from training.readers import read_data

_MODELS: Final = ROOT / "models"
_OPTION: Final = "+normalized"
_DATA_SETS: Final = ("clinc150", "banking77")
"""Data sets that have a sample model of the same name."""
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
    *,
    shared: Annotated[
        Path, typer.Option(envvar="INTENT_SHARED", file_okay=False, help="Folder with the data sets.")
    ] = ROOT.parent / "shared",
) -> None:
    """Measure sample models on the test texts in scope of their data, as they are and as people type them.

    Each model is measured as it is, and without normalization.
    """
    if not (shared / "datasets").is_dir():
        fail("there are no data sets in --shared (or INTENT_SHARED)", EXIT_USAGE)
    print_table(
        [
            Column("data"),
            Column("texts"),
            Column("number", right=True),
            Column("without", right=True),
            Column("with", right=True),
        ],
        [row for data_set in _DATA_SETS for row in _rows(data_set, shared / "datasets")],
    )


def without_normalization(sample: Path, folder: Path) -> Path:
    """Copy a model into ``folder``, without normalization, and return the copy."""
    copy = shutil.copytree(sample, folder / sample.name)
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["Tokenizer"] = manifest["Tokenizer"].replace(_OPTION, "")
    path.write_text(json.dumps(manifest))
    return copy


def _rows(data_set: str, datasets: Path) -> Iterator[tuple[str, ...]]:
    rows = _test_texts(data_set, datasets)
    quoted = [row for row in rows if "'" in row.text]
    with tempfile.TemporaryDirectory() as folder:
        models = [
            _loaded(model) for model in (without_normalization(_MODELS / data_set, Path(folder)), _MODELS / data_set)
        ]
    variants: Sequence[tuple[str, Sequence[Example], Callable[[str], str]]] = (
        ("as they are", rows, str),
        ("with an apostrophe, as they are", quoted, str),
        ("with an apostrophe, curly", quoted, curly),
        ("full-width", rows, full_width),
        ("zero-width spaces", rows, zero_width),
    )
    for name, chosen, change in variants:
        yield data_set, name, str(len(chosen)), *(f"{_accuracy(model, chosen, change):.2%}" for model in models)


def _test_texts(data_set: str, datasets: Path) -> Sequence[Example]:
    if data_set == "banking77":
        return read_data(datasets / "banking77/test.csv").train
    return [row for row in read_data(datasets / "clinc150/data_full.json").test if row.label != OUT_OF_SCOPE]


def _loaded(folder: Path) -> IntentModel:
    model_id = ModelId(folder.name)
    loader = Loader(ModelStore(folder.parent), FileLimits())
    return loader.load(model_id, loader.fingerprint(model_id))


def _accuracy(model: IntentModel, rows: Sequence[Example], change: Callable[[str], str]) -> float:
    answers = model.predict([Query(model.model_id, change(row.text)) for row in rows])
    given = [answer.label for answer in answers if isinstance(answer, Prediction)]
    return accuracy([row.label for row in rows], given)


if __name__ == "__main__":
    app()
