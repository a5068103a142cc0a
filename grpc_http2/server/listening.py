"""Sockets that a server listens on, and the TLS of those who come."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Final

_BACKLOG: Final = 4096
_ANY_PORT: Final = 0
# From when a connection is accepted until its protocol hears of it.
_INTRODUCTION_TURNS: Final = 2


class Listener:
    """Accepts connections.

    Args:
        sockets: bound, not yet listening; closed with the listener.
        protocol: makes the protocol of a new connection.
        tls_seconds: time for the TLS handshake, in seconds.
    """

    def __init__(
        self, sockets: Sequence[socket.socket], protocol: Callable[[], asyncio.BaseProtocol], tls_seconds: float
    ) -> None:
        self._sockets = sockets
        self._protocol = protocol
        self._tls_seconds = tls_seconds
        self._servers: list[asyncio.Server] = []

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._sockets[0].getsockname()[1])

    async def accept(self, tls: ssl.SSLContext | None) -> None:
        """Accept connections from now on, encrypted with ``tls``. Again, with another one: replaces it.

        The socket stays the same, so that no connection is lost: those which are accepted before the change have the
        former certificate, those after it the new one.
        """
        former = self._servers
        loop = asyncio.get_running_loop()
        timeout = None if tls is None else self._tls_seconds
        self._servers = [
            await loop.create_server(
                self._protocol, sock=each.dup(), ssl=tls, ssl_handshake_timeout=timeout, backlog=_BACKLOG
            )
            for each in self._sockets
        ]
        for server in former:
            server.close()

    async def close(self) -> None:
        """Accept no more; those who are connected already, and wait to be accepted, are accepted first."""
        for each in self._sockets:
            # A caller that comes now finds the queue full, and tries again until the port is closed.
            with contextlib.suppress(OSError):
                each.listen(0)
        for _ in range(_BACKLOG):
            if not _somebody_waits(self._sockets):
                break
            # A turn of the loop accepts them, or, on uvloop, one of them.
            await asyncio.sleep(0)
        for _ in range(_INTRODUCTION_TURNS):
            await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        for each in self._sockets:
            each.close()


def _somebody_waits(sockets: Iterable[socket.socket]) -> bool:
    poll = select.poll()
    for each in sockets:
        poll.register(each, select.POLLIN)
    return bool(poll.poll(0))


async def bound_sockets(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Return a socket for each address of ``host``, all on one port.

    Args:
        host: a name or an address, IPv4 or IPv6.
        port: 0 takes one that is free.
        reuse_port: whether other processes may listen on the same port, and share its connections.

    Raises:
        OSError: an address is no address of this machine, or is taken.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            each = socket.socket(family, kind, protocol)
            sockets.append(each)
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            same_port = sockets[0].getsockname()[1] if port == _ANY_PORT and len(sockets) > 1 else port
            each.bind((address[0], same_port, *address[2:]))
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets
