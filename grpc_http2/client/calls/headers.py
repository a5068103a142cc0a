"""Headers of a call, as grpcio's types have them."""

from __future__ import annotations

import functools

from grpc import StatusCode
from grpc.aio import Metadata

from grpc_http2.client.calls.stream import Headers
from grpc_http2.wire import Header, WireError, code_of_http, metadata_of, status_of, timeout_of_seconds


@functools.lru_cache(maxsize=4096)
def timeout_header(milliseconds: int) -> Header:
    """Return the header with the time left for a call."""
    # A repeated value takes one byte on the wire; in microseconds, the value would differ with each call.
    return b"grpc-timeout", timeout_of_seconds(max(milliseconds, 1) / 1000)


def metadata_in(headers: Headers) -> Metadata:
    """Return the metadata in the headers of a response; empty if they are damaged."""
    try:
        return Metadata(*metadata_of(headers))
    except WireError:
        return Metadata()


def status_of_http(headers: dict[bytes, bytes]) -> tuple[StatusCode, str]:
    """Return the status for a response that is not a gRPC response."""
    status = headers.get(b":status", b"")
    known = status_of(headers)
    if known is not None:
        return known
    return code_of_http(status), f"the server answered with HTTP status {status.decode('ascii', 'replace')}"
