"""Measured results of trained models."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Run:
    """One model: its training, and its figures on the test split. Shares are from 0 to 1."""

    seed: int
    in_scope: float
    """In-scope accuracy with the threshold in force."""
    in_scope_without_threshold: float
    out_of_scope_recall: float | None
    calibration_error: float
    temperature: float
    threshold: float
    training_seconds: float
    """Running time of the whole training command, in seconds."""
    folder_bytes: int
    microseconds: float
    """p50 for one document in the loaded model, in microseconds."""
    explained_microseconds: float
    """p50 for one document with the explanation of its label, in microseconds."""
    explanation_error: float
    """Largest difference between a logit and the sum of bias and contributions, over all test texts."""
    curve: tuple[tuple[float, float], ...] = ()
    """Out-of-scope recall and in-scope accuracy for thresholds from 0 to 1."""


@dataclass(frozen=True, slots=True)
class DataSetRuns:
    """All models of one data set and recipe."""

    title: str
    name: str
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Bound that the models of a data set must reach, on average over the seeds."""

    data_set: str
    title: str
    figure: Callable[[Run], float]
    bound: float
    is_least: bool
    text: Callable[[float], str]

    def reached(self, value: float) -> bool:
        """Return whether ``value`` is within the bound."""
        return value >= self.bound if self.is_least else value <= self.bound


_ALL: Final = TypeAdapter(list[DataSetRuns])


def written(found: Sequence[DataSetRuns]) -> bytes:
    """Return all figures as JSON."""
    return _ALL.dump_json(list(found), indent=2)


def read(data: bytes) -> list[DataSetRuns]:
    """Return the figures that :func:`written` wrote.

    Raises:
        ValueError: ``data`` has another form.
    """
    return _ALL.validate_json(data)


def percent(value: float) -> str:
    """Return a share as text in percent."""
    return f"{100 * value:.2f} %"


def megabytes(value: float) -> str:
    """Return a number of bytes as text in megabytes."""
    return f"{value / 1e6:.2f} MB"


def mean_and_spread(values: Sequence[float], text: Callable[[float], str]) -> str:
    """Return the mean, the least and the most of ``values`` as text."""
    return f"{text(statistics.fmean(values))} ({text(min(values))} to {text(max(values))})"


def _accuracy(run: Run) -> float:
    return run.in_scope


def _error(run: Run) -> float:
    return run.calibration_error


TARGETS: Final = (
    Target("data_full", "in-scope accuracy, threshold in force", _accuracy, 0.92, True, percent),
    Target(
        "data_full", "out-of-scope recall, by threshold", lambda run: run.out_of_scope_recall or 0, 0.5, True, percent
    ),
    Target("data_full", "expected calibration error in scope", _error, 0.03, False, percent),
    Target("data_full", "size of the folder", lambda run: run.folder_bytes, 8e6, False, megabytes),
    Target("data_full", "training, seconds", lambda run: run.training_seconds, 300, False, "{:.0f}".format),
    Target("data_full", "p50 of a document, microseconds", lambda run: run.microseconds, 60, False, "{:.1f}".format),
    Target(
        "data_full",
        "p50 with explanation, against without",
        lambda run: run.explained_microseconds / run.microseconds,
        1.5,
        False,
        "{:.2f}".format,
    ),
    Target(
        "data_full",
        "contributions and bias against the logit",
        lambda run: run.explanation_error,
        1e-5,
        False,
        "{:.1e}".format,
    ),
    Target("data_small", "in-scope accuracy, threshold in force", _accuracy, 0.9, True, percent),
    Target("data_small", "expected calibration error in scope", _error, 0.03, False, percent),
    Target("banking77", "accuracy, threshold in force", _accuracy, 0.9, True, percent),
    Target("banking77", "expected calibration error", _error, 0.03, False, percent),
)
