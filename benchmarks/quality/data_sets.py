"""Data sets that models are trained on, and the training options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.data import Example
from training.readers import read_data


@dataclass(frozen=True, slots=True)
class DataSetPlan:
    """A data set and a recipe."""

    name: str
    title: str
    file: str
    """Path of the file, relative to the folder of all data sets."""
    test_file: str | None = None
    """File of the test split, if ``file`` itself has none."""
    options: tuple[str, ...] = ()
    """Options of ``intentctl train`` that differ from the defaults."""

    def path(self, shared: Path) -> Path:
        """Return the file that models are trained on."""
        return shared / "datasets" / self.file

    def all_options(self, shared: Path) -> list[str]:
        """Return the options of ``intentctl train``."""
        return [*self.options, *(["--test", str(shared / "datasets" / self.test_file)] if self.test_file else [])]

    def test(self, shared: Path) -> Sequence[Example]:
        """Return the rows that models are measured on."""
        if self.test_file is None:
            return read_data(self.path(shared)).test
        return read_data(shared / "datasets" / self.test_file).train


_WORDS: Final = ("--tokenizer", "basic_english+normalized")

DATA_SETS: Final = (
    DataSetPlan("data_full", "CLINC150 `data_full`", "clinc150/data_full.json"),
    DataSetPlan("data_small", "CLINC150 `data_small`", "clinc150/data_small.json"),
    DataSetPlan("banking77", "Banking77", "banking77/train.csv", "banking77/test.csv"),
    DataSetPlan("words", "CLINC150 `data_full`, words alone", "clinc150/data_full.json", options=_WORDS),
)
