"""What keeps a prediction from being made. Messages are read by the person at the terminal."""

from __future__ import annotations


class CapacityError(Exception):
    """Root of the errors of this package."""


class BadCounts(CapacityError):
    """The file of request counts cannot be used as it is. The message names the file and the line."""


class NothingMeasured(CapacityError):
    """The model folder does not tell how large the models are."""
