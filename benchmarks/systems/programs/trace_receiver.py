"""A receiver of traces that parses requests and keeps nothing. ``python -m ... PORT``."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Trace service of OTLP."""

    def Export(self, request: Any, context: Any) -> Any:
        """Accept spans and discard them."""
        del request, context
        return trace_service_pb2.ExportTraceServiceResponse()


def serve(port: str) -> None:
    """Serve until the process is stopped."""
    server = grpc.server(ThreadPoolExecutor(1))
    add_to_server: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add_to_server(Receiver(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(sys.argv[1])
