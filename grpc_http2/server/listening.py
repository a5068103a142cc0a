"""Sockets that a server listens on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

_BACKLOG: Final = 4096
_EXHAUSTED_SECONDS: Final = 0.1
_ANY_PORT: Final = 0
_EVERY_ADDRESS: Final = "::"
_MAPPED: Final = "::ffff:"
"""Beginning of an IPv4 address in the notation of IPv6."""
_ZONE: Final = "%"
NOT_OF_THIS_MACHINE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""Errors of addresses that this machine does not have."""


class Dealing(Protocol):
    """Distributes connections among servers in several processes."""

    def keeps(self, connection: socket.socket) -> bool:
        """Return whether this process serves a connection; otherwise, another process has taken the connection."""

    def fewer(self) -> None:
        """Count one connection fewer in this process."""


class Listener:
    """Accepts connections.

    Args:
        sockets: bound sockets that do not listen yet; closed with the listener.
        opened: called with each connection to be served here, and its TLS context.
        tls: TLS context of the connections.
        dealing: decides whether a connection is served here or by another process; without it, always here.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        opened: Callable[[socket.socket, ssl.SSLContext | None], object],
        tls: ssl.SSLContext | None,
        dealing: Dealing | None = None,
    ) -> None:
        self.tls = tls
        """TLS context of connections that are accepted from now on."""
        self._sockets = sockets
        self._opened = opened
        self._dealing = dealing
        self._loop = asyncio.get_running_loop()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}

    @property
    def port(self) -> int:
        """Port of the listener."""
        return int(self._sockets[0].getsockname()[1])

    def begin(self) -> None:
        """Start accepting connections.

        Raises:
            OSError: another socket listens on the port.
        """
        for each in self._sockets:
            each.listen(_BACKLOG)
        for each in self._sockets:
            self._loop.add_reader(each, self._accept, each)

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that another process has accepted."""
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._opened(connection, self.tls)

    def close(self) -> None:
        """Stop accepting connections; those that are already queued for acceptance are accepted first."""
        for each in self._sockets:
            # A caller that connects now finds the queue full, and retries until the port is closed.
            with contextlib.suppress(OSError):
                each.listen(0)
            while self._accept(each):
                pass
            self._loop.remove_reader(each)
            each.close()
        for pause in self._pauses.values():
            pause.cancel()

    def _accept(self, listening: socket.socket) -> bool:
        """Accept one queued connection, so that others have their turn too; return whether more may be queued."""
        try:
            connection, _ = listening.accept()
        except ConnectionAbortedError:
            return True
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            # Descriptors or memory have run out: queued connections have to wait for a moment.
            self._loop.remove_reader(listening)
            self._pauses[listening] = self._loop.call_later(_EXHAUSTED_SECONDS, self._resume, listening)
            return False
        connection.setblocking(False)
        if self._dealing is None or self._dealing.keeps(connection):
            self.adopt(connection)
        return True

    def _resume(self, listening: socket.socket) -> None:
        del self._pauses[listening]
        self._loop.add_reader(listening, self._accept, listening)


Place = tuple[Any, ...]
"""An address to listen on, as the socket module writes it."""


async def places_of(host: str, port: int) -> Sequence[tuple[socket.AddressFamily, Place]]:
    """Return the addresses of ``host``, each with its family.

    Raises:
        OSError: no address is known.
        UnicodeError: ``host`` is not a name.
    """
    host = host.strip("[]")
    if _ZONE in host:
        # The look-up of uvloop loses the zone; an address with a zone is a number, so that no name server is asked.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST)
    else:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, place) for family, _, _, _, place in found))


def is_ipv6_only(address: object) -> bool:
    """Return whether an IPv6 address stands only for itself, and for no IPv4 address."""
    text = str(address)
    return text != _EVERY_ADDRESS and not text.startswith(_MAPPED)


async def bound_sockets(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Return a socket for each address of ``host``, all on one port.

    Names such as localhost often have an IPv6 address on a machine without IPv6: addresses of a name that are not
    of this machine are left out, unless all of them are. ``::`` stands for all addresses of the machine, including IPv4
    ones; any other IPv6 address stands only for itself.

    Args:
        host: name or address, IPv4 or IPv6, with or without brackets.
        port: port number; 0 selects a free port.
        reuse_port: whether other processes may listen on the same port, and share its connections.

    Raises:
        OSError: an address is in use, or none belongs to this machine.
        UnicodeError: ``host`` is not a name.
    """
    found = await places_of(host, port)
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, address in found:
            same_port = sockets[0].getsockname()[1] if port == _ANY_PORT and sockets else port
            place = (address[0], same_port, *address[2:])
            try:
                sockets.append(_bound(socket.socket(family, socket.SOCK_STREAM), place, reuse_port=reuse_port))
            except OSError as error:
                if error.errno not in NOT_OF_THIS_MACHINE:
                    raise
                missing = error
        if missing is not None and not sockets:
            raise missing
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def _bound(unbound: socket.socket, place: Place, *, reuse_port: bool) -> socket.socket:
    """Return the socket, bound to ``place``. Raises OSError, with the socket closed."""
    try:
        unbound.setblocking(False)
        unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if unbound.family == socket.AF_INET6:
            unbound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_ipv6_only(place[0]))
        unbound.bind(place)
    except OSError:
        unbound.close()
        raise
    return unbound
