"""gRPC's server side as an ASGI application: hosts grpcio servicers on any ASGI server with HTTP/2 and trailers."""
