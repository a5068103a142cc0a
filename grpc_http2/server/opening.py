"""The beginning of a connection: TLS, and the first bytes, which tell HTTP/2 from HTTP/1.1."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Final, cast

from grpc_http2.alarms import Alarm
from grpc_http2.engine import PREFACE

if TYPE_CHECKING:
    from grpc_http2.server.server import Server

# No method of HTTP/1.1 begins like the preface of HTTP/2.
_TELLING_BYTES: Final = 4


class Opening(asyncio.Protocol):
    """Hands a new connection over once it is known what it speaks, and closes one that does not say so in time.

    Args:
        server: whose connection it is.
        connection: has been accepted; closed with the opening.
        tls: encrypts it.
    """

    def __init__(self, server: Server, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._server = server
        self._connection = connection
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._introduction: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._alarm: Alarm | None = None

    def begin(self) -> None:
        """Begin. A caller that is to be encrypted costs a descriptor and a timer until it says something."""
        self._server.opening.add(self)
        self.hurry(self._server.limits.handshake_seconds)
        if self._tls is None:
            self.introduce()
        else:
            self._loop.add_reader(self._connection, self._hear)

    def introduce(self) -> None:
        """Give the connection its transport, by way of a handshake where there is TLS."""
        self._introduction = self._loop.create_task(self._introduce())
        self._server.introductions.add(self._introduction)
        self._introduction.add_done_callback(self._server.introductions.discard)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Go on with what TLS has agreed on where there is TLS."""
        # uvloop's transports are no subclass.
        self._transport = cast("asyncio.Transport", transport)
        self._server.handshakes.end(self)
        tls = transport.get_extra_info("ssl_object")
        agreed = None if tls is None else tls.selected_alpn_protocol()
        if agreed is not None:
            self._hand_over(agreed == "h2")

    def data_received(self, data: bytes) -> None:
        """Look at what has arrived."""
        self._received += data
        received = self._received[: len(PREFACE)]
        if not PREFACE.startswith(received):
            self._hand_over(is_http2=False)
        elif len(received) >= _TELLING_BYTES:
            self._hand_over(is_http2=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        del exc
        self._leave()

    def hurry(self, seconds: float) -> None:
        """Give it ``seconds`` more to say what it speaks."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._server.alarms.after(seconds, self.abort)

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()
        elif self._introduction is not None:
            # Its transport, which is not known yet, reads the end and closes.
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
        else:
            self._loop.remove_reader(self._connection)
            self._leave()

    def _hear(self) -> None:
        self._loop.remove_reader(self._connection)
        self._server.handshakes.begin(self)

    async def _introduce(self) -> None:
        seconds = None if self._tls is None else self._server.limits.handshake_seconds
        try:
            await self._loop.connect_accepted_socket(
                lambda: self, self._connection, ssl=self._tls, ssl_handshake_timeout=seconds
            )
        except OSError:
            """The caller has left, or speaks no TLS."""
        finally:
            if self._transport is None:
                self._leave()

    def _hand_over(self, is_http2: bool) -> None:
        transport = self._transport
        if transport is None:
            return
        self._forget()
        protocol = self._server.connection() if is_http2 else self._server.http1.protocol()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._received:
            protocol.data_received(self._received)

    def _leave(self) -> None:
        if self in self._server.opening:
            self._forget()
            self._connection.close()
            self._server.fewer()

    def _forget(self) -> None:
        self._transport = None
        self._server.opening.discard(self)
        self._server.handshakes.end(self)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
