"""Hosting of gRPC servicers: they know nothing of the server that hosts them."""
