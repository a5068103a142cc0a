"""Errors that prevent a forecast. Their messages are for the person at the terminal."""

from __future__ import annotations


class CapacityError(Exception):
    """Base class of the errors of this package."""


class BadCounts(CapacityError):
    """The file of request counts is not usable as it is. The message names the file and the line."""


class NothingMeasured(CapacityError):
    """The model sizes cannot be determined from the model folder."""
