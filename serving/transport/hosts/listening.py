"""Failures to listen on an address, with their causes."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from grpc_http2.server.listening import bound_sockets
from intent_serving_client.addresses import address_of

_CAUSES: Final = {
    errno.EADDRINUSE: "it is in use; end the process that holds it, or choose another port",
    errno.EADDRNOTAVAIL: "it is not an address of this machine",
    errno.EINVAL: "a link-local address needs the name of its interface, as in fe80::1%eth0",
    errno.EAFNOSUPPORT: "this machine has no IPv6",
    errno.EACCES: "this user may not listen on it; choose a port from 1024 on",
    errno.EMFILE: "the process may open no more files; raise its limit (ulimit -n)",
}


class CannotListen(Exception):
    """The address cannot be listened on. The message names the address and the cause."""


def cannot_listen(host: str, port: int, error: OSError | UnicodeError | None, purpose: str = "") -> CannotListen:
    """Return the error for an address that cannot be listened on.

    Args:
        host: name or address.
        port: port number.
        error: error of the attempt; ``None`` if its cause is not known.
        purpose: text after the address, such as " for metrics".
    """
    return CannotListen(f"cannot listen on {address_of(host, port)}{purpose}: {_cause(error)}")


async def cause_of_refusal(host: str, port: int) -> OSError | UnicodeError | None:
    """Return the error that the system gives for an address; ``None`` if the address has become available.

    For servers of other libraries, which do not say why they cannot listen.
    """
    try:
        for each in await bound_sockets(host, port):
            each.close()
    except (OSError, UnicodeError) as error:
        return error
    return None


def _cause(error: OSError | UnicodeError | None) -> str:
    if error is None:
        return "it was not available for a moment; try again"
    if isinstance(error, UnicodeError):
        return "its host is not a name"
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return "the name cannot be looked up at the moment; write an address of this machine"
        return "there is no such name; write an address of this machine"
    return _CAUSES.get(error.errno or 0, os.strerror(error.errno or 0).lower())
