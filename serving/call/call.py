"""The call that is being served: its request id, its deadline, who makes it, and what is told of it at its end."""

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

REQUEST_ID_KEY: Final = "x-request-id"
"""Metadata key that carries the request id, from the caller on and back to it."""
RETRY_AFTER_KEY: Final = "retry-after"
"""Metadata key of refused calls: the seconds after which trying again makes sense."""

# The first half tells processes apart, the second the calls of one: a random id each would cost a system call.
_PROCESS: Final = os.urandom(8).hex()
_numbers = itertools.count(int.from_bytes(os.urandom(4), "big"))

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Slot(Protocol):
    """One of the places that a service has for calls."""

    def give_back(self) -> None:
        """Let another call have it."""

    def take_back(self) -> None:
        """Have it again, at once, even where there is none."""


class CallNotes:
    """What the rooms on a call's way tell of it, for its log line and its span.

    Told by reference, and read at the end of the call by those that want it: each call pays for a few assignments.
    """

    model: str = ""
    """The model that was asked, as far as it is resolved; unset where the queries tell it."""
    release: str = ""
    """What the version that answered is to its release: ``stable``, ``canary``."""
    query: Query | None = None
    """What was asked, where it is one query."""
    answer: Prediction | None = None
    """What it was answered."""
    queries: Sequence[Query] | None = None
    """What was asked, where it is a batch."""
    outcomes: Sequence[Outcome | None] = ()
    """The outcome of each query of the batch; ``None`` for those to be asked alone."""
    slot: Slot | None = None
    """The place among those being served that it holds."""
    releases: int = 0
    """How many parts of it have stepped aside from that place."""
    was_released: bool = False
    """Whether any ever has."""

    def forget(self) -> None:
        """Let go of what was asked and answered: tasks that the call has started may know its notes for long."""
        self.query = self.answer = self.queries = None
        self.outcomes = ()


class _NoNotes(CallNotes):
    """Of calls of our own: nobody reads them."""

    def __setattr__(self, name: str, value: object) -> None:
        """Keep nothing."""


_NO_NOTES: Final = _NoNotes()


class Call:
    """What every room on a request's way may need to know of it.

    Args:
        request_id: of the call, in log lines and answers.
        deadline: when its caller waits no more.
        identity: who makes it.
        span: what is recorded of the call, where it is.
        notes: what the rooms on its way tell of it.
    """

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
    def notes(self) -> CallNotes:
        """What the rooms on the call's way tell of it."""
        return self._notes

    @classmethod
    def until(cls, deadline: Deadline) -> Call:
        """Return a call of our own, with a new request id."""
        return Call(_new_request_id(), deadline)

    def with_deadline(self, deadline: Deadline) -> Call:
        """Return the same call for a part of the work that has another deadline; its notes are those of the call."""
        return Call(self.request_id, deadline, self.identity, self.span, self.notes)

    def with_span(self, span: Span) -> Call:
        """Return the same call for a part of the work that is recorded as ``span``."""
        return Call(self.request_id, self.deadline, self.identity, span, self.notes)


_current: ContextVar[Call] = ContextVar("call")


def current_call() -> Call:
    """Return the call that this task serves. LookupError outside of one."""
    return _current.get()


def call_if_any() -> Call | None:
    """Return the call that this task serves; ``None`` outside of one."""
    return _current.get(None)


def request_id_of_call() -> str | None:
    """Return the request id of the call that this task serves; ``None`` outside of one."""
    call = _current.get(None)
    return None if call is None else call.request_id


def span_of_call() -> Span | None:
    """Return what is recorded of the call that this task serves; ``None`` outside of one, and where nothing is."""
    call = _current.get(None)
    return None if call is None else call.span


def note_model(model_id: str) -> None:
    """Tell which model the call that this task serves asks for, as its caller wrote it."""
    call = _current.get(None)
    if call is not None:
        call.notes.model = model_id


def enter_call(call: Call) -> None:
    """Make ``call`` the one that this task, and the tasks it starts, serve."""
    _current.set(call)


def request_id_from(offered: str | bytes | None) -> str:
    """Return the caller's own request id where it is fit for a log line, else a new one."""
    if isinstance(offered, str) and _REQUEST_ID.fullmatch(offered):
        return offered
    return _new_request_id()


def _new_request_id() -> str:
    return f"{_PROCESS}{next(_numbers):016x}"
