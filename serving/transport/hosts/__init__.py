"""Servers that host gRPC servicers: our own HTTP/2 server and grpcio."""
