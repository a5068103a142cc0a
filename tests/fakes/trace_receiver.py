"""A fake receiver of traces: the gRPC service of OTLP, which keeps the spans it receives.

A real collector is another program to install, and shows its spans only after a delay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

PATIENCE = 30.0


@dataclass(frozen=True)
class ReceivedSpan:
    """One span, and the service that sent it."""

    service: str
    name: str
    kind: str
    trace_id: str
    id: str
    parent: str
    """Id of the parent span; empty for the first span of a trace."""
    start: int
    end: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    """Trace id and span id of each link."""
    failed: bool
    everything: str
    """Everything that was sent about the span, as text."""


@dataclass
class FakeTraceReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """OTLP servicer that stores the spans it receives."""

    spans: list[ReceivedSpan] = field(default_factory=list)
    address: str = ""

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract names it
        for resource in request.resource_spans:
            service = _attributes(resource.resource.attributes)["service.name"]
            self.spans += [_received(service, span) for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def wait_until(self, arrived: Callable[[list[ReceivedSpan]], bool]) -> list[ReceivedSpan]:
        """Return the spans once ``arrived`` returns true for them."""
        deadline = time.monotonic() + PATIENCE
        while not arrived(list(self.spans)):
            assert time.monotonic() < deadline, "\n".join(f"{span.service} {span.name}" for span in self.spans)
            time.sleep(0.05)
        return list(self.spans)

    def wait_for_trace(self, trace_id: str, *names: str) -> list[ReceivedSpan]:
        """Return the spans of a trace once those with ``names`` are among them."""

        def of_trace(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
            return [span for span in spans if span.trace_id == trace_id]

        return of_trace(self.wait_until(lambda spans: {*names} <= {span.name for span in of_trace(spans)}))


@contextmanager
def fake_trace_receiver(port: int = 0) -> Iterator[FakeTraceReceiver]:
    """Run a receiver on the loopback interface; end it after the block."""
    receiver = FakeTraceReceiver()
    server = grpc.server(ThreadPoolExecutor(2))
    add_to_server: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add_to_server(receiver, server)
    receiver.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    try:
        yield receiver
    finally:
        server.stop(None).wait()


def _received(service: str, span: trace_pb2.Span) -> ReceivedSpan:
    return ReceivedSpan(
        service,
        span.name,
        trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _attributes(span.attributes),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        str(span),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
