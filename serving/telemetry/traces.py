"""Distributed traces with OpenTelemetry: sampling of calls, recorded attributes, and export.

Imported only where traces are enabled: the library is slow to load.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple

import structlog
from grpc import StatusCode
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace import Span as RecordedSpan
from opentelemetry.trace import StatusCode as SpanStatus
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.call.call import Call
from serving.call.presented import Presented
from serving.call.spans import Attribute, Kind, Span
from serving.domain.version import VERSION
from serving.telemetry.call_log import failed_of, model_of

log = structlog.get_logger()

TRACEPARENT: Final = "traceparent"
"""Metadata key that carries a trace, in the format of the W3C's "Trace Context"."""
TRACESTATE: Final = "tracestate"
"""Metadata key of other systems' additions to the trace."""

MOST_SPANS_WAITING: Final = 8192
"""Maximum number of spans that wait to be sent; further spans are dropped and counted."""

_SPANS_A_MESSAGE: Final = 512
_SECONDS_BETWEEN_MESSAGES: Final = 1.0
_MOST_LINKS: Final = 256
_MOST_CHARACTERS: Final = 256
_MOST_ATTRIBUTES: Final = 32

# Later versions of the format may append further parts.
_TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)

_KINDS: Final[Mapping[Kind, SpanKind]] = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}
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
        linked = [Link(span.recorded.get_span_context()) for span in links[:_MOST_LINKS] if isinstance(span, SdkSpan)]
        begun = self._tracer.start_span(
            name, set_span_in_context(self.recorded, Context()), _KINDS[kind], links=linked, start_time=since
        )
        return SdkSpan(self._tracer, begun)

    def tell(self, name: str, value: Attribute) -> None:
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


class SampledCalls:
    """A :class:`~serving.transport.guards.CallTracer` of a share of the calls, and of calls that callers have sampled.

    Args:
        tracer: records the spans.
        share: share of the calls without a trace that is recorded, from 0 to 1.
        per_second: maximum number of these calls per second, on average; 0: no maximum.
    """

    def __init__(self, tracer: Tracer, share: float, per_second: float = 0.0) -> None:
        self._tracer = tracer
        self._share = share
        self._random = random.random
        self._per_second = per_second
        self._left = per_second
        """Number of traces that may begin at once; at most those of one second."""
        self._counted_at = monotonic()

    def begin(self, method: str, presented: Presented) -> SdkSpan | None:
        """Return a new span for a call of ``method``; ``None`` if the call is not recorded."""
        # Every call pays for the code before the decision.
        told = presented.metadatum(TRACEPARENT)
        parent = None if told is None else _parent_of(told)
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
        now = monotonic()
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
        span.tell("rpc.response.status_code", code.name)
        span.tell("intent.request_id", call.request_id)
        if model := model_of(notes):
            span.tell("intent.model", model)
        if notes.release:
            span.tell("intent.release", notes.release)
        if notes.queries is not None:
            span.tell("intent.queries", len(notes.queries))
            span.tell("intent.queries_failed", failed_of(notes))
        span.end(code.name if code in _FAULTS else "")


# Proxies in the environment are meant for web traffic.
_CHANNEL_OPTIONS: Final[Any] = (("grpc.enable_http_proxy", 0),)


class _Counted(SpanExporter):
    """An exporter that counts its spans and can be shut down during an export.

    Args:
        exporter: sends the spans.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._closed = False
        self.taken = 0
        """Spans that no longer wait: sent, being sent, or lost."""
        self.sent = 0
        self.lost = 0
        """Spans that could not be sent."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans. Blocks until the time limit of a message at most; called in the processor's thread."""
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            if not self._closed:
                result = self._exporter.export(spans)
        except ValueError:
            # gRPC raises ValueError if its channel is closed meanwhile.
            if not self._closed:
                raise
        finally:
            if result is SpanExportResult.SUCCESS:
                self.sent += len(spans)
            else:
                self.lost += len(spans)
        return result

    def shutdown(self) -> None:
        """Stop sending. An export in progress fails at once."""
        if not self._closed:
            self._closed = True
            self._exporter.shutdown()


class _Bounded(SpanProcessor):
    """Queues ended spans, unless too many are waiting. Called on the event loop.

    Args:
        exporter: sends the spans, in a thread.
    """

    def __init__(self, exporter: _Counted) -> None:
        self._exporter = exporter
        self._batches = BatchSpanProcessor(
            exporter,
            # One more than ever wait, so that spans are dropped only here, where they are counted.
            max_queue_size=MOST_SPANS_WAITING + 1,
            schedule_delay_millis=_SECONDS_BETWEEN_MESSAGES * 1e3,
            max_export_batch_size=_SPANS_A_MESSAGE,
        )
        self._given = 0
        self.dropped = 0

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span, or drop it."""
        if self._given - self._exporter.taken >= MOST_SPANS_WAITING:
            self.dropped += 1
            return
        self._given += 1
        self._batches.on_end(span)

    def shutdown(self) -> None:
        """Send the waiting spans and shut down. Blocks."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]


class TraceSender(Collector):
    """Sends spans to an OTLP receiver, and reports their numbers as metrics.

    Args:
        endpoint: address of the receiver: ``host:port``, or ``https://host:port`` for TLS.
        service: name of the service in its spans.
        message_seconds: time limit for sending one message, in seconds.
        end_seconds: time limit for sending the waiting spans at the end, in seconds.
    """

    def __init__(self, endpoint: str, service: str, *, message_seconds: float = 5.0, end_seconds: float = 2.0) -> None:
        self._end_seconds = end_seconds
        address = endpoint if "://" in endpoint else f"http://{endpoint}"
        self._exporter = _Counted(OTLPSpanExporter(address, timeout=message_seconds, channel_options=_CHANNEL_OPTIONS))
        self._spans = _Bounded(self._exporter)
        attributes: dict[str, Attribute] = {
            "service.name": service,
            "service.namespace": "intent-serving",
            "service.version": VERSION,
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        }
        self._provider = TracerProvider(
            ALWAYS_ON,
            Resource(attributes),
            shutdown_on_exit=False,
            span_limits=SpanLimits(
                max_attributes=_MOST_ATTRIBUTES,
                max_links=_MOST_LINKS,
                max_attribute_length=_MOST_CHARACTERS,
                max_events=0,
            ),
        )
        self._provider.add_span_processor(self._spans)
        self.tracer = self._provider.get_tracer("intent-serving", VERSION)

    async def close(self) -> None:
        """Send the waiting spans, for two seconds at most."""
        end = asyncio.ensure_future(asyncio.to_thread(self._spans.shutdown))
        done, _ = await asyncio.wait({end}, timeout=self._end_seconds)
        if not done:
            self._exporter.shutdown()
        await end
        lost = self._exporter.lost + self._spans.dropped
        if lost:
            log.warning("spans were not sent", lost=lost, sent=self._exporter.sent)

    def collect(self) -> Iterator[Metric]:
        """Return the current values of the metrics. Called in any thread."""
        sent = CounterMetricFamily("intent_trace_spans_sent", "Spans that the receiver of traces has taken.")
        sent.add_metric([], self._exporter.sent)
        yield sent
        dropped = CounterMetricFamily("intent_trace_spans_dropped", "Spans that it did not get.", labels=["reason"])
        dropped.add_metric(["queue_full"], self._spans.dropped)
        dropped.add_metric(["not_sent"], self._exporter.lost)
        yield dropped


def _parent_of(told: str) -> _Parent | None:
    """Return the caller's span in a ``traceparent`` value; ``None`` if the value is malformed."""
    found = _TRACEPARENT.fullmatch(told)
    if found is None or (found[1] == "00" and found[5] is not None):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    return _Parent(trace_id, span_id, bool(int(found[4], 16) & TraceFlags.SAMPLED)) if trace_id and span_id else None


def _attributes_of(method: str) -> dict[str, Attribute]:
    verb, space, route = method.partition(" ")
    if space:
        return {"http.request.method": verb, "http.route": route}
    return {"rpc.system.name": "grpc", "rpc.method": method}
