"""Labelled texts, in splits for training, early stopping and measurement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from serving.domain.confidence import FALLBACK_LABEL
from serving.domain.wording import counted
from training.errors import BadData

OUT_OF_SCOPE: Final = FALLBACK_LABEL
"""Label of texts that belong to no intent, as in CLINC150."""


VALIDATION_FRACTION: Final = 0.1
"""Share of each label's texts that is held out, if the data has no validation split."""
FEWEST_VALIDATED: Final = 200
"""Minimum number of texts that a temperature and a threshold are fitted on without cross-validation."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text and its label."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Source:
    """A file that texts were read from."""

    file: str
    """Name of the file, without its folders."""
    sha256: str


@dataclass(frozen=True, slots=True)
class DataSet:
    """Splits of the data, including out-of-scope rows. Only the final evaluation uses ``test``."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    sources: tuple[Source, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the training rows, sorted: the classes of a model."""
        return labels_of(self.train)

    def keeping(self, labels: Collection[str]) -> DataSet:
        """Return the rows whose label is one of ``labels``.

        Raises:
            BadData: one of the labels occurs in no training row.
        """
        for label in labels:
            if label not in self.labels:
                raise BadData(f"no training row has the label {label!r}; give one of the labels of the data")
        return self._filtered(labels)

    def without(self, label: str) -> DataSet:
        """Return the rows whose label is not ``label``."""
        return self._filtered({example.label for split in self._splits for example in split} - {label})

    def divided(self, fraction: float | None, seed: int) -> DataSet:
        """Return this data set for training: with a validation split, or without one for cross-validation.

        The validation split is its own, or else ``fraction`` of each label's training rows. If ``fraction`` is
        ``None``, it is a tenth, or nothing if that would be fewer than 200 rows.

        Raises:
            BadData: ``fraction`` takes no row.
        """
        if fraction is not None or self.validation:
            return self.with_validation(fraction or VALIDATION_FRACTION, seed)
        rows = tuple(dict.fromkeys(self.train))
        if len(rows) * VALIDATION_FRACTION < FEWEST_VALIDATED:
            return replace(self, train=rows)
        return self.with_validation(VALIDATION_FRACTION, seed)

    def with_validation(self, fraction: float, seed: int) -> DataSet:
        """Return this data set with a validation split: its own, or else ``fraction`` of each label's training rows.

        Each label keeps at least one training row. Duplicate rows count once, so that no copy of a training row is used
        for validation.

        Raises:
            BadData: there are too few rows to take any.
        """
        if self.validation:
            return self
        rows = tuple(dict.fromkeys(self.train))
        taken = _rows_to_take([example.label for example in rows], fraction, Random(seed))  # noqa: S311 - not a secret
        if not taken:
            raise BadData(
                "there are too few rows per label to keep some for validation; leave out "
                "--validation-fraction, or add rows"
            )
        return replace(
            self,
            train=tuple(example for row, example in enumerate(rows) if row not in taken),
            validation=tuple(example for row, example in enumerate(rows) if row in taken),
        )

    def check(self) -> None:
        """Check that a model can be trained on this data set.

        Raises:
            BadData: there are fewer than two labels, or a label has no training row.
        """
        labels = self.labels
        if len(labels) < 2:
            raise BadData(f"the training rows have {counted(len(labels), 'label')}; a classifier needs at least two")
        for example in (*self.validation, *self.test):
            if example.label not in labels:
                raise BadData(f"the label {example.label!r} has rows for testing, but none for training")

    @property
    def _splits(self) -> tuple[tuple[Example, ...], ...]:
        return self.train, self.validation, self.test

    def _filtered(self, labels: Collection[str]) -> DataSet:
        train, validation, test = (
            tuple(example for example in split if example.label in labels) for split in self._splits
        )
        return replace(self, train=train, validation=validation, test=test)


def labels_of(examples: Iterable[Example]) -> tuple[str, ...]:
    """Return the labels of ``examples``, sorted."""
    return tuple(sorted({example.label for example in examples}))


def _rows_to_take(labels: Sequence[str], fraction: float, random: Random) -> set[int]:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        rows_of[label].append(row)
    return {
        row for rows in rows_of.values() for row in random.sample(rows, min(round(len(rows) * fraction), len(rows) - 1))
    }
