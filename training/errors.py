"""Errors of training. A person at the terminal reads the messages, so they say in plain words what to do."""

from __future__ import annotations


class TrainingError(Exception):
    """Base class of the errors of this package."""


class BadData(TrainingError):
    """The labelled texts cannot be used for training as they are. The message names the file and the line."""


class FolderUnwritable(TrainingError):
    """The model folder could not be written; no part of it was left behind."""
