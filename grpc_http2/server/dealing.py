"""Accepts connections one by one, so that others may have them, and takes some that others have accepted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final, Protocol

_BACKLOG: Final = 4096
_AT_ONCE: Final = 64
_EXHAUSTED_SECONDS: Final = 0.1
_INTRODUCTION_TURNS: Final = 3


class Dealing(Protocol):
    """Deals connections out among servers in several processes."""

    def keeps(self, connection: socket.socket) -> bool:
        """Return whether a connection is to be served here; otherwise somebody else has it now."""

    def fewer(self) -> None:
        """Take in that there is a connection less here."""


class DealtListener:
    """Does what :class:`~grpc_http2.server.listening.Listener` does, with the connections that ``dealing`` keeps.

    Args:
        sockets: bound, not yet listening; closed with the listener.
        protocol: makes the protocol of a new connection.
        tls_seconds: time for the TLS handshake, in seconds.
        dealing: decides who serves a connection.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        protocol: Callable[[], asyncio.BaseProtocol],
        tls_seconds: float,
        dealing: Dealing,
    ) -> None:
        self._sockets = sockets
        self._protocol = protocol
        self._tls_seconds = tls_seconds
        self._dealing = dealing
        self._loop = asyncio.get_running_loop()
        self._tls: ssl.SSLContext | None = None
        self._listens = False
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._introductions: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._sockets[0].getsockname()[1])

    @property
    def introductions(self) -> int:
        """Number of connections whose protocol has not heard of them."""
        return len(self._introductions)

    async def accept(self, tls: ssl.SSLContext | None) -> None:
        """Accept connections from now on, encrypted with ``tls``. Again, with another one: replaces it."""
        self._tls = tls
        if not self._listens:
            self._listens = True
            for each in self._sockets:
                each.listen(_BACKLOG)
                self._loop.add_reader(each, self._accept, each)

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that somebody else has accepted."""
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        introduction = self._loop.create_task(self._introduce(connection))
        self._introductions.add(introduction)
        introduction.add_done_callback(self._introductions.discard)

    async def close(self) -> None:
        """Accept no more; those who are connected already, and wait to be accepted, are accepted first."""
        for each in self._sockets:
            # A caller that comes now finds the queue full, and tries again until the port is closed.
            with contextlib.suppress(OSError):
                each.listen(0)
            while self._accept(each):
                pass
            self._loop.remove_reader(each)
            each.close()
        for pause in self._pauses.values():
            pause.cancel()
        for _ in range(_INTRODUCTION_TURNS):
            await asyncio.sleep(0)

    def _accept(self, listening: socket.socket) -> bool:
        """Accept some of those who wait; return whether there may be more."""
        for _ in range(_AT_ONCE):
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False
            except OSError:
                # No descriptor or no memory is left: those who wait have to wait for a moment.
                self._loop.remove_reader(listening)
                self._pauses[listening] = self._loop.call_later(_EXHAUSTED_SECONDS, self._resume, listening)
                return False
            connection.setblocking(False)
            if self._dealing.keeps(connection):
                self.adopt(connection)
        return True

    def _resume(self, listening: socket.socket) -> None:
        del self._pauses[listening]
        self._loop.add_reader(listening, self._accept, listening)

    async def _introduce(self, connection: socket.socket) -> None:
        tls = self._tls
        timeout = None if tls is None else self._tls_seconds
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=tls, ssl_handshake_timeout=timeout)
        except OSError:
            # The caller has left, or speaks no TLS.
            connection.close()
