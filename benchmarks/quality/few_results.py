"""Measured results of models of few texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class FewRun:
    """One model of few texts, and its figures on the test texts. Shares are from 0 to 1."""

    sample: str
    """Data set and number of texts a label, as in ``clinc150-5``."""
    seed: int
    in_scope: float
    """In-scope accuracy with the threshold in force."""
    without_threshold: float
    """In-scope accuracy of the best labels."""
    refused: float
    """Share of CLINC150's out-of-scope texts that get the fallback label."""
    calibration_error: float
    """Expected calibration error on the texts in scope."""
    threshold: float
    seconds: float
    """Running time of the whole training command, in seconds."""


FIGURES: Final[Sequence[tuple[str, Callable[[FewRun], float]]]] = (
    ("in scope", lambda run: run.in_scope),
    ("without threshold", lambda run: run.without_threshold),
    ("out of scope refused", lambda run: run.refused),
    ("calibration error", lambda run: run.calibration_error),
)
"""Titles of the figures that are reported, and how a run has them."""

_ALL: Final = TypeAdapter(list[FewRun])


def written(runs: Sequence[FewRun]) -> bytes:
    """Return the runs as JSON."""
    return _ALL.dump_json(list(runs), indent=2)


def read(data: bytes) -> list[FewRun]:
    """Return the runs that :func:`written` wrote.

    Raises:
        ValueError: ``data`` has another form.
    """
    return _ALL.validate_json(data)
