"""Export of spans: a bounded queue, messages to an OTLP receiver, and their metrics."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any, Final

import structlog
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from intent_serving_client.version import VERSION
from serving.call.spans import Attribute
from serving.telemetry.traces.spans import MOST_LINKS

log = structlog.get_logger()

MOST_SPANS_WAITING: Final = 8192
"""Maximum number of spans that wait to be sent; further spans are dropped and counted."""

# Proxies in the environment are meant for web traffic.
_CHANNEL_OPTIONS: Final[Any] = (("grpc.enable_http_proxy", 0),)
_SPANS_A_MESSAGE: Final = 512
_SECONDS_BETWEEN_MESSAGES: Final = 1.0
_MOST_CHARACTERS: Final = 256
_MOST_ATTRIBUTES: Final = 32


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
        """Send spans. Blocks for at most the time limit of a message; called in the processor's thread."""
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            if not self._closed:
                result = self._exporter.export(spans)
        except ValueError:
            # gRPC raises ValueError if its channel is closed in the meantime.
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
            # One more than can ever wait, so that spans are dropped only here, where they are counted.
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
    """Sends spans to an OTLP receiver, and reports as metrics how many were sent and dropped.

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
                max_links=MOST_LINKS,
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
            log.warning("spans not sent", lost=lost, sent=self._exporter.sent)

    def collect(self) -> Iterator[Metric]:
        """Return the current values of the metrics. Called in any thread."""
        sent = CounterMetricFamily("intent_trace_spans_sent", "Spans that the receiver of traces has accepted.")
        sent.add_metric([], self._exporter.sent)
        yield sent
        dropped = CounterMetricFamily(
            "intent_trace_spans_dropped", "Spans that did not reach the receiver of traces.", labels=["reason"]
        )
        dropped.add_metric(["queue_full"], self._spans.dropped)
        dropped.add_metric(["not_sent"], self._exporter.lost)
        yield dropped
