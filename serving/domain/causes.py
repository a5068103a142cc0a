"""Causes of errors as text: what the log needs of an exception, without the objects that the exception refers to."""

from __future__ import annotations

import copy
from typing import Final

from serving.domain.errors import ServingError

_MOST_CHARACTERS: Final = 512


class Cause(Exception):
    """The text of an exception from elsewhere."""

    def __init__(self, text: str, shown: str) -> None:
        super().__init__(text, shown)
        self._text = text
        self._shown = shown

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._shown


def shown_cause(cause: BaseException) -> str:
    """Return an exception as the log shows it."""
    if isinstance(cause, UnicodeError):
        # A UnicodeError contains the whole text, which may be a document.
        return type(cause).__name__
    return repr(cause)[:_MOST_CHARACTERS]


def detached(error: ServingError) -> ServingError:
    """Return a copy of ``error`` that keeps no other object alive.

    The traceback of an error refers to the frames that it passed, whose variables may hold the bytes of a file; its
    cause may refer to a whole document. An error that is remembered, or is part of a reference cycle, would keep them.
    """
    fresh = copy.copy(error).with_traceback(None)
    cause = error.__cause__
    if isinstance(cause, Cause):
        fresh.__cause__ = cause.with_traceback(None)
    elif cause is not None:
        shown = shown_cause(cause)
        fresh.__cause__ = Cause(shown if isinstance(cause, UnicodeError) else str(cause)[:_MOST_CHARACTERS], shown)
    return fresh
