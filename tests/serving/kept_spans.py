"""Spans of the real library, kept instead of sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from serving.call.spans import Span
from serving.telemetry.traces.sampling import SampledCalls
from tests.fakes.presented import FakePresented


class KeptSpans(SpanExporter):
    """An exporter that keeps ended spans."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self))
        self._tracer = provider.get_tracer("test")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS

    def calls(self, share: float, per_second: float = 0.0, clock: Callable[[], float] = time.monotonic) -> SampledCalls:
        """Return a tracer that records ``share`` of the calls here, at most ``per_second`` a second; 0: no limit."""
        return SampledCalls(self._tracer, share, per_second, clock)

    def call(self) -> Span:
        """Return the span of a call."""
        span = self.calls(1.0).begin("prediction.PredictionService/Predict", FakePresented())
        assert span is not None
        return span

    def names(self) -> list[str]:
        """Return the names of the spans in the order of their end; a failed span has its error type beside its name."""
        return [f"{span.name} {(span.attributes or {}).get('error.type', '')}".strip() for span in self.spans]
