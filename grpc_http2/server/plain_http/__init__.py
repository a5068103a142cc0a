"""Plain HTTP on the port of gRPC, over HTTP/1.1 and HTTP/2."""
