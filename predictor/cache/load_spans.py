"""Spans of loads of models, for calls that are traced."""

from __future__ import annotations

import time
from typing import NamedTuple

from serving.call.call import span_of_call
from serving.call.spans import Span
from serving.domain.model_id import ModelId


class _Waiter(NamedTuple):
    span: Span
    since: int
    """In nanoseconds of Unix time."""


class LoadSpans:
    """Spans of loads under way, for the traced calls that wait for them. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiters: dict[ModelId, list[_Waiter]] = {}
        """At most as many as calls are in flight; a load that ends takes its own away."""

    def wait(self, model_id: ModelId) -> None:
        """Have the call that this task serves wait for the load of a model that is under way, if it is traced."""
        span = span_of_call()
        if span is not None:
            self._waiters.setdefault(model_id, []).append(_Waiter(span, time.time_ns()))

    def end(self, model_id: ModelId, since: int, *, size: int = 0, error: str = "") -> None:
        """Record a load that has ended.

        It has its place in the trace of the first traced call that waited, and links to the others. In the traces of
        those a span links to the load.

        Args:
            model_id: what was loaded.
            since: when the load began, in nanoseconds of Unix time.
            size: bytes that the model takes in memory.
            error: what went wrong, where something did.
        """
        waiters = self._waiters.pop(model_id, None)
        if waiters is None:
            return
        first, *others = waiters
        load = first.span.child("model load", since=since, links=[waiter.span for waiter in others])
        load.tell("intent.model", model_id)
        if size:
            load.tell("intent.model_bytes", size)
        load.end(error)
        for waiter in others:
            waiter.span.child("wait for model load", since=waiter.since, links=[load]).end(error)
