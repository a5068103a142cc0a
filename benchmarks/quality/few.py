"""Models of few texts: training and measurement. ``python -m benchmarks.quality.few --help``."""

from __future__ import annotations

import csv
import json as json_format
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from random import Random
from typing import Annotated, Final

import typer

from benchmarks.quality.few_page import with_few
from benchmarks.quality.few_results import FIGURES, FewRun, read, written
from benchmarks.quality.measuring import train
from benchmarks.quality.results import mean_and_spread, percent
from evaluation.metrics import accuracy, expected_calibration_error
from intentctl.output import EXIT_USAGE, Column, fail, print_table
from peers.programs import ROOT
from predictor.model.loader import FileLimits, Loader
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query
from serving.volume.model_store import ModelStore
from training.data import OUT_OF_SCOPE, Example
from training.readers import read_data

_PAGE: Final = ROOT / "docs" / "quality.md"
_MODEL: Final = ModelId("measured")
_DATA_SETS: Final = ("clinc150", "banking77")
_COUNTS: Final = (5, 10, 20)
_FIXED: Final = (5, 10)
"""Numbers of texts a label for which papers on few-shot classification share fixed samples."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def few(
    *,
    seeds: Annotated[int, typer.Option(min=1, help="Train each model with the seeds 0 to N-1.")] = 3,
    only: Annotated[str | None, typer.Option(metavar="NAME-TEXTS,...", help="Samples, as clinc150-5. [all]")] = None,
    options: Annotated[str, typer.Option(help="Further options of `intentctl train`.")] = "",
    at_once: Annotated[int, typer.Option(min=1, help="Number of models to train at once.")] = 2,
    shared: Annotated[
        Path, typer.Option(envvar="INTENT_SHARED", file_okay=False, help="Folder with the data sets.")
    ] = ROOT.parent / "shared",
    checkout: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Project whose `intentctl train` is measured.")
    ] = ROOT,
    json: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Add the figures to this file; models that it has are not trained again."),
    ] = None,
    write_docs: Annotated[
        str | None,
        typer.Option(metavar="BEFORE,NOW", help="Measure nothing; write two such files to docs/quality.md."),
    ] = None,
) -> None:
    """Train models of 5, 10 and 20 texts a label, and measure them on the test texts and on texts out of scope."""
    if write_docs is not None:
        before, now = (read(Path(name).read_bytes()) for name in write_docs.split(","))
        _PAGE.write_text(with_few(_PAGE.read_text(), before, now))
        return
    names = [f"{data_set}-{count}" for data_set in _DATA_SETS for count in _COUNTS]
    chosen = names if only is None else only.split(",")
    if not set(chosen) <= set(names):
        fail(f"--only takes {', '.join(names)}", EXIT_USAGE)
    if not (shared / "datasets").is_dir():
        fail("there are no data sets in --shared (or INTENT_SHARED)", EXIT_USAGE)
    runs = read(json.read_bytes()) if json is not None and json.exists() else []
    known = {(run.sample, run.seed) for run in runs}
    # All samples of a seed come before the next seed, so that an interrupted run has the same seeds for most samples.
    missing = [(name, seed) for seed in range(seeds) for name in chosen if (name, seed) not in known]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(at_once) as pool:

        def measured(name: str, seed: int) -> FewRun:
            return _run(name, seed, shared, Path(folder) / f"{name}-{seed}", checkout=checkout, options=options.split())

        for ended in as_completed([pool.submit(measured, name, seed) for name, seed in missing]):
            run = ended.result()
            print(run, file=sys.stderr, flush=True)
            runs.append(run)
            if json is not None:
                json.write_bytes(written(runs))
    head = ("sample", *(title for title, _ in FIGURES))
    print_table([Column(name) for name in head], [_row(name, runs) for name in chosen])


def _row(name: str, runs: Sequence[FewRun]) -> tuple[str, ...]:
    same = [run for run in runs if run.sample == name]
    return (name, *(mean_and_spread([figure(run) for run in same], percent) for _, figure in FIGURES))


def _run(name: str, seed: int, shared: Path, folder: Path, *, checkout: Path, options: Sequence[str]) -> FewRun:
    data_set, _, count = name.partition("-")
    datasets = shared / "datasets"
    texts, test = _sample(datasets, data_set, int(count), seed)
    folder.mkdir(parents=True)
    with (folder / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((row.text, row.label) for row in texts)])
    training = train(folder / "texts.csv", options, seed, folder / "models", checkout)
    loader = Loader(ModelStore(folder / "models"), FileLimits())
    model = loader.load(_MODEL, loader.fingerprint(_MODEL))
    outside = [row.text for row in read_data(datasets / "clinc150/data_full.json").test if row.label == OUT_OF_SCOPE]
    answers, refused = (
        [answer for answer in model.predict([Query(_MODEL, text) for text in texts]) if isinstance(answer, Prediction)]
        for texts in ([row.text for row in test], outside)
    )
    labels = [row.label for row in test]
    best = [
        (answer.fallback.best.label, answer.fallback.best.score) if answer.fallback else (answer.label, answer.score)
        for answer in answers
    ]
    right = [label == other for (label, _), other in zip(best, labels, strict=True)]
    return FewRun(
        sample=name,
        seed=seed,
        in_scope=accuracy(labels, [answer.label for answer in answers]),
        without_threshold=sum(right) / len(right),
        refused=sum(answer.fallback is not None for answer in refused) / len(refused),
        calibration_error=expected_calibration_error([score for _, score in best], right),
        threshold=model.confidence.threshold,
        seconds=training.seconds,
    )


def _sample(datasets: Path, data_set: str, count: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Return the training texts, ``count`` of each label, and the test texts."""
    if count in _FIXED:
        few, test = (
            [Example(text, label) for text, label in json_format.loads((datasets / "few-shot" / name).read_text())]
            for name in (f"{data_set}_{count}.json", f"{data_set}_test.json")
        )
        return few, test
    if data_set == "clinc150":
        data = read_data(datasets / "clinc150/data_full.json")
        every, test = list(data.train), list(data.test)
    else:
        every, test = (list(read_data(datasets / f"banking77/{split}.csv").train) for split in ("train", "test"))
    random = Random(seed)
    of_labels = {
        label: [row for row in dict.fromkeys(every) if row.label == label]
        for label in sorted({row.label for row in every} - {OUT_OF_SCOPE})
    }
    few = [row for rows in of_labels.values() for row in random.sample(rows, count)]
    return few, [row for row in test if row.label != OUT_OF_SCOPE]


if __name__ == "__main__":
    app()
