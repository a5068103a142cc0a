"""The part of docs/quality.md about models of few texts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from benchmarks.quality.few_results import FewRun
from benchmarks.quality.results import percent

HEADING: Final = "## Few texts"
_TYPED_HEADING: Final = "## What people type"

_TITLES: Final = {"clinc150": "CLINC150", "banking77": "Banking77"}
_FIGURES: Final[Sequence[tuple[str, Callable[[FewRun], float]]]] = (
    ("in scope", lambda run: run.in_scope),
    ("without threshold", lambda run: run.without_threshold),
    ("out of scope refused", lambda run: run.refused),
    ("calibration error", lambda run: run.calibration_error),
)
_OPENING: Final = """\
`python -m benchmarks.quality.few` trains models of 5, 10 and 20 texts a label as a user does, without a validation
split and without texts out of scope, and measures them on the test texts and on CLINC150's 1,000 out-of-scope test
texts. Each cell has the former method's figure and the present one's. The former method kept a tenth of the texts for
validation (a fifth of five), and calibrated the model on these; the present one calibrates by cross-validation unless
that tenth is 200 texts or more, and trains on all texts ([training](training.md#few-texts)).
"""
_CLOSING: Final = """\
Figures are means over the seeds. The texts of 5 and 10 a label are the samples that papers on few-shot classification
share (Zhang et al., "Few-Shot Intent Detection via Contrastive Pre-Training and Fine-Tuning", 2021); those of 20 are
drawn by the seed.
"""


def with_few(page: str, before: Sequence[FewRun], now: Sequence[FewRun]) -> str:
    """Return ``page`` with this part at its end, in place of a former one."""
    return f"{page.partition(HEADING)[0].rstrip()}\n\n" + "\n".join(_lines(before, now)).rstrip() + "\n"


def kept_from(page: str) -> str:
    """Return what `scripts/quality` does not write: the part about typed texts, and this one; empty if none exists."""
    starts = [start for heading in (_TYPED_HEADING, HEADING) if (start := page.find(heading)) >= 0]
    return page[min(starts) :] if starts else ""


def _lines(before: Sequence[FewRun], now: Sequence[FewRun]) -> Iterator[str]:
    yield from (HEADING, "", _OPENING)
    yield f"| data | texts a label | seeds | {' | '.join(title for title, _ in _FIGURES)} |"
    yield f"| {' | '.join('---' for _ in range(len(_FIGURES) + 3))} |"
    for sample in dict.fromkeys(run.sample for run in now):
        old, new = ([run for run in runs if run.sample == sample] for runs in (before, now))
        data_set, _, count = sample.partition("-")
        cells = [f"{_mean(old, figure)} -> {_mean(new, figure)}" for _, figure in _FIGURES]
        yield f"| {_TITLES[data_set]} | {count} | {len(new)} | {' | '.join(cells)} |"
    yield from ("", _CLOSING)


def _mean(runs: Sequence[FewRun], figure: Callable[[FewRun], float]) -> str:
    return percent(statistics.fmean(map(figure, runs)))
