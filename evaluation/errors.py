"""What goes wrong in an evaluation. Messages are read by the person at the terminal: they say what to do."""

from __future__ import annotations

from serving.domain.errors import ServingError


class EvaluationError(Exception):
    """Root of the errors of this package."""


class RowRefused(EvaluationError):
    """A text of the data cannot be asked, so there is no figure for all of them. ``reason`` is why."""

    def __init__(self, row: int, reason: ServingError) -> None:
        super().__init__(f"row {row} of the data was refused: {reason}")
        self.reason = reason
