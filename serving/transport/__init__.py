"""Hosting of gRPC servicers, which are independent of the server that hosts them."""
