"""gRPC over HTTP/2 for asyncio, in one thread: a server for grpcio's generated servicers, a channel for its stubs.

A sans-IO engine (:mod:`grpc_http2.engine`) provides framing, header compression and flow control; this package adds
what gRPC adds to HTTP/2: messages, metadata, statuses, deadlines, cancellation, keepalive, drain, retries.
"""
