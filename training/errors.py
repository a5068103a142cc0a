"""What goes wrong in training. Messages are read by the person at the terminal: they say in plain words what to do."""

from __future__ import annotations


class TrainingError(Exception):
    """Root of the errors of this package."""


class BadData(TrainingError):
    """The labelled texts cannot be trained on as they are. The message names the file and the line."""


class FolderUnwritable(TrainingError):
    """The model folder could not be written; nothing of it was left behind."""
