"""gRPC over HTTP/2 for asyncio, in one thread: a server for grpcio's generated servicers, a channel for its stubs.

Framing, header compression and flow control are those of a sans-IO engine (:mod:`grpc_http2.engine`); this package
adds what gRPC adds to HTTP/2: messages, metadata, statuses, deadlines, cancellation, keepalive, drain, retries.
"""
