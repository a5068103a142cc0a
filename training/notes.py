"""Notes on what training could not determine because texts are lacking, in words for the person who trains."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from serving.domain.wording import counted
from training.cross_validation import PARTS
from training.data import FEWEST_VALIDATED, DataSet, Example
from training.model import TrainedModel

_FEW_TEXTS: Final = 10
_MOSTLY_WRONG: Final = 0.5
_SHOWN_CHARACTERS: Final = 80


def notes_on(model: TrainedModel, data: DataSet) -> Iterator[str]:
    """Yield a note for each thing that the data could not show: what is missing, what that means, and what helps."""
    fallback, threshold = model.confidence.fallback, model.confidence.threshold
    if not data.validation:
        yield (
            f"there are too few texts to keep some for validation: the model is trained on all {len(data.train)}, and "
            f"its accuracy, temperature and threshold come from {PARTS} models, each trained on "
            f"{PARTS - 1} of {PARTS} parts of the texts and measured on the other part"
        )
    elif len(data.validation) < FEWEST_VALIDATED:
        yield (
            f"temperature and threshold come from {len(data.validation)} validation texts, which is few: they may be "
            "off; without a validation split and --validation-fraction, all texts are used"
        )
    counts = Counter(row.label for row in data.train)
    few = [label for label in data.labels if counts[label] < _FEW_TEXTS]
    if few:
        least = min(few, key=lambda label: counts[label])
        yield (
            f"{len(few)} of {len(counts)} labels have fewer than {_FEW_TEXTS} texts ({least!r} has {counts[least]}): "
            "more texts improve these labels most"
        )
    yield from _note_on_conflicts((*data.train, *data.validation))
    if model.validation_accuracy < _MOSTLY_WRONG:
        yield (
            f"only {model.validation_accuracy:.0%} of the texts that the model was not shown got their label: write "
            "more texts, and look for labels that mean the same"
        )
    if not any(row.label == fallback for row in (*data.train, *data.validation, *data.test)):
        yield (
            f"no text is labelled {fallback!r}, so it is not known how many texts out of scope are refused; the "
            f"threshold of {threshold:.3g} was chosen by texts in scope alone: choose another with --threshold, label "
            f"some texts {fallback!r}, or name the label that such texts have with --fallback-label"
        )
    if not data.test:
        yield "there are no test texts, so nothing was measured on texts that played no part: give some with --test"


def _note_on_conflicts(rows: Iterable[Example]) -> Iterator[str]:
    """Yield a note if texts have more than one label. Case and spaces make no difference."""
    labels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        labels[" ".join(row.text.casefold().split())][row.label] += 1
    conflicts = {text: counts for text, counts in labels.items() if len(counts) > 1}
    if conflicts:
        text, counts = max(conflicts.items(), key=lambda item: item[1].total())
        told = ", ".join(
            f"{label!r} {number} times" if number > 1 else f"{label!r}" for label, number in counts.items()
        )
        has = f"{counted(len(conflicts), 'text')} {'has' if len(conflicts) == 1 else 'have'}"
        yield (
            f"{has} more than one label ({textwrap.shorten(text, _SHOWN_CHARACTERS)!r}: {told}), and the model can "
            "give only one of them: choose one for each such text"
        )
