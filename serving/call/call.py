"""The call that is being served: its request id, deadline, caller and span, and notes for its log line."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final, Protocol

from serving.call.deadline import Deadline
from serving.call.identity import ANYBODY, Identity
from serving.call.spans import Span
from serving.domain.prediction import Outcome, Prediction, Query

# The first half tells processes apart, the second the calls of one: a random id for each call would cost a system call.
_PROCESS: Final = os.urandom(8).hex()
_numbers = itertools.count(int.from_bytes(os.urandom(4), "big"))

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Slot(Protocol):
    """A slot among the calls that a service admits at the same time."""

    def give_back(self) -> None:
        """Free the slot for another call."""

    def take_back(self) -> None:
        """Take a slot again, at once, even if none is free."""


class CallNotes:
    """Notes that are taken during a call, for its log line and its span.

    Notes are references, read at the end of the call, so that each call pays only for a few assignments.
    """

    model: str = ""
    """Id of the model, resolved as far as it is known; empty where the queries name the model."""
    release: str = ""
    """Role of the version that answered: ``stable`` or ``canary``."""
    query: Query | None = None
    """Query of a call for one document."""
    answer: Prediction | None = None
    """Answer to that query."""
    queries: Sequence[Query] | None = None
    """Queries of a batch."""
    outcomes: Sequence[Outcome | None] = ()
    """Outcome of each query of the batch; ``None`` for queries that are to be sent alone."""
    slot: Slot | None = None
    """Slot that the call holds."""
    releases: int = 0
    """Number of parts of the call that have released the slot at the moment."""
    was_released: bool = False
    """Whether the slot was ever released."""
    unanswered_seconds: float = 0.0
    """Time that the call waited for models that did not answer; for a batch, the longest such time of a document."""

    def forget(self) -> None:
        """Drop queries and answers: tasks that the call started may keep its notes for a long time."""
        self.query = self.answer = self.queries = None
        self.outcomes = ()


class _NoNotes(CallNotes):
    """Notes of the service's own calls, which are never read."""

    def __setattr__(self, name: str, value: object) -> None:
        """Keep nothing."""


_NO_NOTES: Final = _NoNotes()


class Call:
    """One call, passed along the path of its request.

    Args:
        request_id: the id of the call in log lines and answers.
        deadline: the moment after which its caller no longer waits.
        identity: the caller.
        span: the span of the call, if the call is traced.
        notes: notes for the log line and the span.
    """

    is_counted: bool = True
    """Whether quotas count what the call asks. They do not count what is asked to compare versions."""

    def __init__(
        self,
        request_id: str,
        deadline: Deadline,
        identity: Identity = ANYBODY,
        span: Span | None = None,
        notes: CallNotes = _NO_NOTES,
    ) -> None:
        self.request_id = request_id
        self.deadline = deadline
        self.identity = identity
        self.span = span
        self._notes = notes

    @property
    def is_inner(self) -> bool:
        """Whether a pipeline makes this call, as a part of the call of its caller."""
        return False

    @property
    def notes(self) -> CallNotes:
        """Notes for the log line and the span."""
        return self._notes

    @classmethod
    def until(cls, deadline: Deadline) -> Call:
        """Return a call of the service itself, with a new request id."""
        return Call(_new_request_id(), deadline)

    def with_deadline(self, deadline: Deadline) -> Call:
        """Return the call with another deadline, for a part of its work; the notes are shared."""
        return self._with(deadline, self.identity, self.span)

    def with_identity(self, identity: Identity) -> Call:
        """Return the call with another identity, for a part of its work; the notes are shared."""
        return self._with(self.deadline, identity, self.span)

    def with_span(self, span: Span) -> Call:
        """Return the call with ``span``, for a part of its work; the notes are shared."""
        return self._with(self.deadline, self.identity, span)

    def apart(self, deadline: Deadline) -> Call:
        """Return a call of its own for the same caller, which outlives this one, and which quotas do not count."""
        apart = Call(self.request_id, deadline, self.identity)
        apart.is_counted = False
        return apart

    def _with(self, deadline: Deadline, identity: Identity, span: Span | None) -> Call:
        copy = Call(self.request_id, deadline, identity, span, self.notes)
        copy.is_counted = self.is_counted
        return copy


_current: ContextVar[Call] = ContextVar("call")


def current_call() -> Call:
    """Return the call that this task serves. Raises LookupError outside a call."""
    return _current.get()


def call_if_any() -> Call | None:
    """Return the call that this task serves; ``None`` outside a call."""
    return _current.get(None)


def request_id_of_call() -> str | None:
    """Return the request id of the call that this task serves; ``None`` outside a call."""
    call = _current.get(None)
    return None if call is None else call.request_id


def span_of_call() -> Span | None:
    """Return the span of the call that this task serves; ``None`` outside a call, or if the call is not traced."""
    call = _current.get(None)
    return None if call is None else call.span


def note_model(model_id: str) -> None:
    """Note the model that the call of this task asks for, as its caller wrote the id."""
    call = _current.get(None)
    if call is not None:
        call.notes.model = model_id


def enter_call(call: Call) -> None:
    """Make ``call`` the call that this task serves, and every task that it starts."""
    _current.set(call)


def request_id_from(offered: str | bytes | None) -> str:
    """Return the caller's request id if it is suitable for a log line, else a new id."""
    if isinstance(offered, str) and _REQUEST_ID.fullmatch(offered):
        return offered
    return _new_request_id()


def _new_request_id() -> str:
    return f"{_PROCESS}{next(_numbers):016x}"
