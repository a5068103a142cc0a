"""The call that is being served: its request id, its deadline and who makes it."""

from __future__ import annotations

import itertools
import os
import re
from contextvars import ContextVar
from typing import Final, NamedTuple, Self

from serving.access.identity import ANYBODY, Identity
from serving.deadline import Deadline

REQUEST_ID_KEY: Final = "x-request-id"
"""Metadata key that carries the request id, from the caller on and back to it."""

# The first half tells processes apart, the second the calls of one: a random id each would cost a system call.
_PROCESS: Final = os.urandom(8).hex()
_numbers = itertools.count(int.from_bytes(os.urandom(4), "big"))

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Call(NamedTuple):
    """What every room on a request's way may need to know of it."""

    request_id: str
    deadline: Deadline
    identity: Identity = ANYBODY

    @classmethod
    def until(cls, deadline: Deadline) -> Self:
        """Return a call of our own, with a new request id."""
        return cls(_new_request_id(), deadline)


_current: ContextVar[Call] = ContextVar("call")


def current_call() -> Call:
    """Return the call that this task serves. LookupError outside of one."""
    return _current.get()


def request_id_of_call() -> str | None:
    """Return the request id of the call that this task serves; ``None`` outside of one."""
    call = _current.get(None)
    return None if call is None else call.request_id


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
