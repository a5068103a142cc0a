"""Generator of docs/quality.md from measured results."""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from benchmarks.quality.plots import PLOT_FOLDER, THRESHOLD_PLOT
from benchmarks.quality.results import TARGETS, DataSetRuns, mean_and_spread, megabytes, percent
from benchmarks.results import Machine

_OPENING: Final = """\
# Model quality

`scripts/quality --write-docs` wrote this page on {day}. Every model is trained by `intentctl train` with the seeds
{seeds}, and measured on the test split, which nothing else uses. Figures are means over the seeds, with the
least and the most.

"In scope" is the accuracy on in-scope texts with the threshold in force: a text that falls back counts as wrong.
"Out of scope" is the recall of out-of-scope texts by the same models with the same threshold. The threshold is chosen
from the in-scope validation texts alone: it is the highest threshold that gives up 0.4 % of them.

![in-scope accuracy and out-of-scope recall by threshold]({folder}/{plot})

## Targets

"""
_MODELS: Final = """
## The models

"""
_EXPLAINED: Final = """
Published figures for CLINC150 `data_full` with a threshold (Larson et al., "An Evaluation Dataset for Intent
Classification and Out-of-Scope Prediction", 2019): an MLP on sentence embeddings has 93.4 % in scope and 49.1 % out of
scope, an SVM 88.2 % and 18.0 %.

## How it was measured

- `data_full` and `data_small` are those of CLINC150, with their own validation split. Banking77 has no validation
  split: a tenth of each label's training texts is kept for validation, and duplicate texts count once.
- The weights are those of the epoch with the lowest validation loss; temperature and threshold are fitted on the
  in-scope validation texts. The choices of the recipe were made on CLINC150's validation split.
- Training seconds are those of the whole command, which uses one core; two models are trained at the same time.
- Microseconds are the p50 over every eleventh test text, from the text to the answer, one text after the other through
  the loaded model in Python. Texts are answered with and without explanation by turns, and the fastest of 20 rounds
  counts. Figures over gRPC: `python -m benchmarks.explanations`.
- Expected calibration error: 15 bins of equal width over the probability of the best label, for in-scope texts.

Machine: {machine.processor}, {machine.cores} cores, Python {machine.python}. To repeat: `scripts/quality --help`.
"""


def page(data_sets: Sequence[DataSetRuns], machine: Machine) -> str:
    """Return the page, as Markdown."""
    return "\n".join(_lines(data_sets, machine)).rstrip() + "\n"


def target_rows(data_sets: Sequence[DataSetRuns]) -> list[tuple[str, str, str, str, str]]:
    """Return data set, title, bound, mean with spread, and verdict of each target."""
    found = {data_set.name: data_set.runs for data_set in data_sets}
    rows = []
    for target in TARGETS:
        if target.data_set in found:
            values = [target.figure(run) for run in found[target.data_set]]
            reached = target.reached(statistics.fmean(values))
            bound = f"{'at least' if target.is_least else 'at most'} {target.text(target.bound)}"
            rows.append(
                (
                    target.data_set,
                    target.title,
                    bound,
                    mean_and_spread(values, target.text),
                    "" if reached else "missed",
                )
            )
    return rows


def _lines(data_sets: Sequence[DataSetRuns], machine: Machine) -> Iterator[str]:
    seeds = ", ".join(str(run.seed) for run in data_sets[0].runs)
    yield _OPENING.format(
        day=dt.datetime.now(tz=dt.UTC).date(),
        seeds=seeds,
        folder=PLOT_FOLDER,
        plot=THRESHOLD_PLOT,
    ).rstrip()
    yield ""
    yield from _table(("data", "what", "wanted", "mean (least to most)", ""), target_rows(data_sets))
    yield _MODELS.rstrip()
    yield ""
    head = ("data and recipe", "in scope", "without threshold", "out of scope", "calibration error", "MB", "s", "us")
    yield from _table(head, [_row(data_set) for data_set in data_sets])
    yield _EXPLAINED.format(machine=machine).rstrip()


def _row(data_set: DataSetRuns) -> tuple[str, ...]:
    runs = data_set.runs
    recalls = [run.out_of_scope_recall for run in runs if run.out_of_scope_recall is not None]
    return (
        data_set.title,
        mean_and_spread([run.in_scope for run in runs], percent),
        mean_and_spread([run.in_scope_without_threshold for run in runs], percent),
        mean_and_spread(recalls, percent) if recalls else "-",
        mean_and_spread([run.calibration_error for run in runs], percent),
        _mean([run.folder_bytes for run in runs], megabytes).removesuffix(" MB"),
        _mean([run.training_seconds for run in runs], "{:.0f}".format),
        _mean([run.microseconds for run in runs], "{:.0f}".format),
    )


def _mean(values: Sequence[float], text: Callable[[float], str]) -> str:
    return text(statistics.fmean(values))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"
