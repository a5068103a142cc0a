"""Errors of an evaluation. A person at the terminal reads the messages, so they say what to do."""

from __future__ import annotations

from serving.domain.errors import ServingError


class EvaluationError(Exception):
    """Base class of the errors of this package."""


class RowRefused(EvaluationError):
    """A text of the data was refused, so no figure covers all rows. ``reason`` is the cause."""

    def __init__(self, row: int, reason: ServingError) -> None:
        super().__init__(f"row {row} of the data was refused: {reason}")
        self.reason = reason
