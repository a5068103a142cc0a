"""Log lines of calls: one JSON object per logged call. Documents' texts are left out unless configured."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any, Final, Literal

import structlog
from grpc import StatusCode

from serving.call.call import Call, CallNotes
from serving.domain.causes import shown_cause
from serving.domain.errors import InvalidModelId, ServingError, Status
from serving.domain.model_id import parse_model_id
from serving.domain.prediction import Query

log = structlog.get_logger()

LogCalls = Literal["none", "failed", "all"]

MOST_DOCUMENTS: Final = 16
"""Maximum number of documents of a batch in a log line."""
MOST_CHARACTERS: Final = 256
"""Maximum number of characters of a document in a log line."""

_FAULTS: Final = (StatusCode.INTERNAL, StatusCode.UNKNOWN)
"""Statuses that are the fault of this service or of the model."""


class CallLog:
    """Logs calls when they end. Create it after logs are configured.

    Args:
        calls: which calls are logged. ``none`` still logs this service's own faults, which are never swallowed.
        documents: whether lines include the beginning of each document.
    """

    def __init__(self, calls: LogCalls = "failed", *, documents: bool = False) -> None:
        self._failed = calls != "none"
        self._documents = documents
        self._wanted = calls == "all"
        self.logs_all = self._wanted or logging.getLogger().isEnabledFor(logging.DEBUG)
        """Whether calls that did not fail are logged."""

    def ended(self, method: str, code: StatusCode, call: Call, started: float) -> None:
        """Log a call that was answered, or whose caller disconnected, if all calls are logged.

        Args:
            method: method of the call, as ``package.Service/Method``.
            code: status of the call.
            call: the call, whose notes are read.
            started: arrival time of the call, in seconds of ``time.monotonic()``.
        """
        if self.logs_all:
            write = log.info if self._wanted else log.debug
            write("call", **self._fields(method, code, call, started))

    def failed(self, method: str, status: Status, error: Exception, call: Call, started: float) -> None:
        """Log a call that failed with ``error`` and was answered with ``status``."""
        if not isinstance(error, ServingError):
            log.error("call", exc_info=error, **self._fields(method, status.code, call, started))
            return
        fault = status.code in _FAULTS
        if fault or self._failed:
            write = log.error if fault else log.info
            fields = self._fields(method, status.code, call, started)
            write("call", message=status.message, cause=_cause_text(error.__cause__), **fields)

    def _fields(self, method: str, code: StatusCode, call: Call, started: float) -> dict[str, Any]:
        notes = call.notes
        seconds = round(time.monotonic() - started, 6)
        # A call may end outside the task that serves it, so its line does not rely on the task's context.
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
    """Return the model of the call, or the common one of all queries of a batch; empty if there is no valid id.

    Callers control the text, so a text that is not a valid model id is never logged.
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
    """Return the number of failed queries of a batch."""
    return sum(isinstance(outcome, ServingError) for outcome in notes.outcomes)


def _checked(model_id: str) -> str:
    try:
        return parse_model_id(model_id)
    except InvalidModelId:
        return ""


def _documents_of(notes: CallNotes) -> list[str]:
    asked: Iterable[Query] = (notes.query,) if notes.query is not None else notes.queries or ()
    return [query.document[:MOST_CHARACTERS] for query, _ in zip(asked, range(MOST_DOCUMENTS), strict=False)]


def _cause_text(cause: BaseException | None) -> str | None:
    return None if cause is None else shown_cause(cause)
