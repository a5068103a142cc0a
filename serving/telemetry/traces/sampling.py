"""Sampling of calls: which calls have a span, and what their span says."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple

from grpc import StatusCode
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)

from serving.call.call import Call
from serving.call.presented import Presented
from serving.call.spans import Attribute, Span
from serving.telemetry.call_log import failed_of, model_of
from serving.telemetry.traces.spans import TRACEPARENT, TRACESTATE, SdkSpan

# Later versions of the format may append further parts.
_TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
# Statuses of gRPC that OpenTelemetry's conventions treat as faults of the server.
_FAULTS: Final = frozenset(
    {
        StatusCode.UNKNOWN,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.UNIMPLEMENTED,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
        StatusCode.DATA_LOSS,
    }
)


class _Parent(NamedTuple):
    """The caller's span to which a call belongs."""

    trace_id: int
    span_id: int
    sampled: bool


class SampledCalls:
    """A :class:`~serving.transport.guards.CallTracer` of a share of the calls, and of calls that callers have sampled.

    Args:
        tracer: records the spans.
        share: share of the calls without a trace that is recorded, from 0 to 1.
        per_second: maximum number of these calls per second, on average; 0: no maximum.
        clock: returns the time, in seconds.
    """

    def __init__(
        self, tracer: Tracer, share: float, per_second: float = 0.0, clock: Callable[[], float] = monotonic
    ) -> None:
        self._tracer = tracer
        self._share = share
        self._random = random.random
        self._per_second = per_second
        self._left = per_second
        """Number of traces that may begin at once; at most those of one second."""
        self._clock = clock
        self._counted_at = clock()

    def begin(self, method: str, presented: Presented) -> SdkSpan | None:
        """Return a new span for a call of ``method``; ``None`` if the call is not recorded."""
        # Every call pays for the code before the decision.
        traceparent = presented.metadatum(TRACEPARENT)
        parent = None if traceparent is None else _parent_of(traceparent)
        if parent is None:
            if self._random() >= self._share or not self._may_begin():
                return None
            above = Context()
        elif not parent.sampled:
            return None
        else:
            state = TraceState.from_header([presented.metadatum(TRACESTATE) or ""])
            remote = SpanContext(parent.trace_id, parent.span_id, True, _SAMPLED, state)
            above = set_span_in_context(NonRecordingSpan(remote), Context())
        span = self._tracer.start_span(method, above, SpanKind.SERVER, attributes=_attributes_of(method))
        return SdkSpan(self._tracer, span)

    def _may_begin(self) -> bool:
        """Return whether another trace may begin now, and count it if so."""
        if not self._per_second:
            return True
        now = self._clock()
        gained = (now - self._counted_at) * self._per_second
        # At a rate below one per second, a whole trace becomes available after some seconds.
        self._left = min(max(self._per_second, 1.0), self._left + gained)
        self._counted_at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def end(self, span: Span, code: StatusCode, call: Call) -> None:
        """End the span, with the attributes of the call."""
        notes = call.notes
        span.set_attribute("rpc.response.status_code", code.name)
        span.set_attribute("intent.request_id", call.request_id)
        if model := model_of(notes):
            span.set_attribute("intent.model", model)
        if notes.release:
            span.set_attribute("intent.release", notes.release)
        if notes.queries is not None:
            span.set_attribute("intent.queries", len(notes.queries))
            span.set_attribute("intent.queries_failed", failed_of(notes))
        span.end(code.name if code in _FAULTS else "")


def _parent_of(traceparent: str) -> _Parent | None:
    """Return the caller's span in a ``traceparent`` value; ``None`` if the value is malformed."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (found[1] == "00" and found[5] is not None):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    return _Parent(trace_id, span_id, bool(int(found[4], 16) & TraceFlags.SAMPLED)) if trace_id and span_id else None


def _attributes_of(method: str) -> dict[str, Attribute]:
    verb, space, route = method.partition(" ")
    if space:
        return {"http.request.method": verb, "http.route": route}
    return {"rpc.system.name": "grpc", "rpc.method": method}
