"""The log lines of calls: one JSON object for each that is told. Never a document's text, unless it is asked for."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any, Final, Literal

import structlog
from grpc import StatusCode

from serving.call.call import Call, CallNotes
from serving.domain.errors import InvalidModelId, ServingError, Status
from serving.domain.model_id import parse_model_id
from serving.domain.prediction import Query

log = structlog.get_logger()

LogCalls = Literal["none", "failed", "all"]

MOST_DOCUMENTS: Final = 16
"""Of a batch, in a log line."""
MOST_CHARACTERS: Final = 256
"""Of a document, in a log line."""

_MOST_CHARACTERS_OF_CAUSE: Final = 512
_FAULTS: Final = (StatusCode.INTERNAL, StatusCode.UNKNOWN)
"""Statuses that are this service's own fault, or the model's."""


class CallLog:
    """Writes a line at the end of calls. Made once logs are configured.

    Args:
        calls: which: ``none`` leaves this service's own faults, for nothing is swallowed.
        documents: whether lines tell what was asked, of each document its beginning.
    """

    def __init__(self, calls: LogCalls = "failed", *, documents: bool = False) -> None:
        self._failed = calls != "none"
        self._documents = documents
        self._wanted = calls == "all"
        self.tells_all = self._wanted or logging.getLogger().isEnabledFor(logging.DEBUG)
        """Whether calls that did not fail get a line."""

    def ended(self, method: str, code: StatusCode, call: Call, started: float) -> None:
        """Tell of a call that did not fail, where all calls are told: it was answered, or its caller left.

        Args:
            method: as ``package.Service/Method``.
            code: how it ended.
            call: its notes are read.
            started: when it arrived, in seconds of ``time.monotonic()``.
        """
        if self.tells_all:
            tell = log.info if self._wanted else log.debug
            tell("call", **self._fields(method, code, call, started))

    def failed(self, method: str, status: Status, error: Exception, call: Call, started: float) -> None:
        """Tell of a call that failed with ``error``, of which its caller gets ``status``."""
        if not isinstance(error, ServingError):
            log.error("call", exc_info=error, **self._fields(method, status.code, call, started))
            return
        fault = status.code in _FAULTS
        if fault or self._failed:
            tell = log.error if fault else log.info
            fields = self._fields(method, status.code, call, started)
            tell("call", message=status.message, cause=_told(error.__cause__), **fields)

    def _fields(self, method: str, code: StatusCode, call: Call, started: float) -> dict[str, Any]:
        notes = call.notes
        seconds = round(time.monotonic() - started, 6)
        # A call may end outside of any task that serves it, so its line does not rely on what the task knows.
        fields: dict[str, Any] = {"method": method, "code": code.name, "seconds": seconds}
        fields["request_id"] = call.request_id
        if call.span is not None:
            fields["trace_id"] = call.span.trace_id
        if call.identity.name:
            fields["identity"] = call.identity.name
        if model := model_of(notes):
            fields["model"] = model
        if notes.release:
            fields["release"] = notes.release
        if notes.queries is not None:
            fields["queries"] = len(notes.queries)
            fields["failed"] = failed_of(notes)
            if later := sum(outcome is None for outcome in notes.outcomes):
                fields["later"] = later
        if self._documents and (documents := _documents_of(notes)):
            fields["documents"] = documents
        return fields


def model_of(notes: CallNotes) -> str:
    """Return the model that was asked, of a batch the one that all queries ask; empty where no id can be told.

    Callers write what they like: what is no model id is told nowhere.
    """
    if notes.answer is not None and notes.answer.model_id:
        return _checked(notes.answer.model_id)
    if notes.model:
        return _checked(notes.model)
    if notes.query is not None:
        return _checked(notes.query.model_id)
    if notes.queries:
        asked = notes.queries[0].model_id
        return _checked(asked) if all(query.model_id == asked for query in notes.queries) else ""
    return ""


def failed_of(notes: CallNotes) -> int:
    """Return how many queries of a batch failed."""
    return sum(isinstance(outcome, ServingError) for outcome in notes.outcomes)


def _checked(model_id: str) -> str:
    try:
        return parse_model_id(model_id)
    except InvalidModelId:
        return ""


def _documents_of(notes: CallNotes) -> list[str]:
    asked: Iterable[Query] = (notes.query,) if notes.query is not None else notes.queries or ()
    return [query.document[:MOST_CHARACTERS] for query, _ in zip(asked, range(MOST_DOCUMENTS), strict=False)]


def _told(cause: BaseException | None) -> str | None:
    if cause is None:
        return None
    if isinstance(cause, UnicodeError):
        # Its parts are the whole text, which may be a document.
        return type(cause).__name__
    return repr(cause)[:_MOST_CHARACTERS_OF_CAUSE]
