"""The part of docs/quality.md about models of few texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.quality.few_results import FIGURES, FewRun
from benchmarks.quality.results import mean_and_spread, percent

HEADING: Final = "## Few texts"
_TYPED_HEADING: Final = "## What people type"

_TITLES: Final = {"clinc150": "CLINC150", "banking77": "Banking77"}
_OPENING: Final = """\
`python -m benchmarks.quality.few` trains models of 5, 10 and 20 texts a label as a user does, without a validation
split and without texts out of scope, and measures them on the test texts and on CLINC150's 1,000 out-of-scope test
texts. The former method kept a tenth of the texts for validation (a fifth of five), and calibrated the model on these;
the present one calibrates by cross-validation unless that tenth is 200 texts or more, and trains on all texts
([training](training.md#few-texts)).
"""
_CLOSING: Final = """\
Figures are means over the seeds, which begin at 0, with the least and the most. The texts of 5 and 10 a label are the
samples that papers on few-shot classification share (Zhang et al., "Few-Shot Intent Detection via Contrastive
Pre-Training and Fine-Tuning", 2021); those of 20 are drawn by the seed.
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
    yield f"| data | texts a label | method | seeds | {' | '.join(title for title, _ in FIGURES)} |"
    yield f"| {' | '.join('---' for _ in range(len(FIGURES) + 4))} |"
    for sample in dict.fromkeys(run.sample for run in sorted(now, key=_place)):
        data_set, _, count = sample.partition("-")
        for method, runs in (("former", before), ("present", now)):
            same = [run for run in runs if run.sample == sample]
            if same:
                cells = [_cell([figure(run) for run in same]) for _, figure in FIGURES]
                yield f"| {_TITLES[data_set]} | {count} | {method} | {len(same)} | {' | '.join(cells)} |"
    yield from ("", _CLOSING)


def _place(run: FewRun) -> tuple[int, int]:
    data_set, _, count = run.sample.partition("-")
    return list(_TITLES).index(data_set), int(count)


def _cell(values: Sequence[float]) -> str:
    return mean_and_spread(values, percent) if len(values) > 1 else percent(values[0])
