"""Spans of OpenTelemetry's SDK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Status, Tracer, set_span_in_context
from opentelemetry.trace import Span as RecordedSpan
from opentelemetry.trace import StatusCode as SpanStatus

from serving.call.spans import Attribute, Kind, Span

TRACEPARENT: Final = "traceparent"
"""Metadata key that carries a trace, in the format of the W3C's "Trace Context"."""
TRACESTATE: Final = "tracestate"
"""Metadata key of other systems' additions to the trace."""

MOST_LINKS: Final = 256
"""Maximum number of links of a span."""

_KINDS: Final[Mapping[Kind, SpanKind]] = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}


class SdkSpan:
    """A :class:`~serving.call.spans.Span` of OpenTelemetry's SDK."""

    __slots__ = ("_ended", "_tracer", "recorded")

    def __init__(self, tracer: Tracer, recorded: RecordedSpan) -> None:
        self._tracer = tracer
        self.recorded = recorded
        self._ended = False

    @property
    def trace_id(self) -> str:
        """Id of the trace to which the span belongs, in 32 hexadecimal digits."""
        return f"{self.recorded.get_span_context().trace_id:032x}"

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata that continues the trace in another service."""
        context = self.recorded.get_span_context()
        parent = (TRACEPARENT, f"00-{context.trace_id:032x}-{context.span_id:016x}-01")
        state = context.trace_state.to_header()
        return (parent, (TRACESTATE, state)) if state else (parent,)

    def child(
        self, name: str, kind: Kind = "internal", *, since: int | None = None, links: Sequence[Span] = ()
    ) -> SdkSpan:
        """Return a child span, which begins now, or began at ``since``."""
        linked = [Link(span.recorded.get_span_context()) for span in links[:MOST_LINKS] if isinstance(span, SdkSpan)]
        begun = self._tracer.start_span(
            name, set_span_in_context(self.recorded, Context()), _KINDS[kind], links=linked, start_time=since
        )
        return SdkSpan(self._tracer, begun)

    def set_attribute(self, name: str, value: Attribute) -> None:
        """Add an attribute."""
        self.recorded.set_attribute(name, value)

    def end(self, error: str = "") -> None:
        """End the span; ``error`` names the failure, if any. Ending the span again changes nothing."""
        if self._ended:
            return
        self._ended = True
        if error:
            self.recorded.set_attribute("error.type", error)
            self.recorded.set_status(Status(SpanStatus.ERROR))
        self.recorded.end()
