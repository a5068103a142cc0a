"""Spans of model loads, for traced calls."""

from __future__ import annotations

import time
from typing import NamedTuple

from serving.call.call import span_of_call
from serving.call.spans import Span
from serving.domain.model_id import ModelId


class _Waiter(NamedTuple):
    span: Span
    since: int
    """Start of the wait, in nanoseconds of Unix time."""


class LoadSpans:
    """Spans of loads under way, for the traced calls that wait for them. Belongs to a single event loop."""

    def __init__(self) -> None:
        self._waiters: dict[ModelId, list[_Waiter]] = {}
        """Waiting calls of each model: at most as many as calls are in flight; the end of a load removes its own."""

    def wait(self, model_id: ModelId) -> None:
        """Record that the call of the current task, if traced, waits for the load of a model that is under way."""
        span = span_of_call()
        if span is not None:
            self._waiters.setdefault(model_id, []).append(_Waiter(span, time.time_ns()))

    def end(self, model_id: ModelId, since: int, *, size: int = 0, error: str = "") -> None:
        """Record a load that has ended.

        The span of the load belongs to the trace of the first traced call that waited, and links to the other calls.
        The trace of each other call has a span that links to the load.

        Args:
            model_id: the loaded model.
            since: start of the load, in nanoseconds of Unix time.
            size: bytes that the model takes in memory.
            error: the error that ended the load, if any.
        """
        waiters = self._waiters.pop(model_id, None)
        if waiters is None:
            return
        first, *others = waiters
        load = first.span.child("model load", since=since, links=[waiter.span for waiter in others])
        load.set_attribute("intent.model", model_id)
        if size:
            load.set_attribute("intent.model_bytes", size)
        load.end(error)
        for waiter in others:
            waiter.span.child("wait for model load", since=waiter.since, links=[load]).end(error)
