"""The opening of a connection: TLS, and the first bytes, which distinguish HTTP/2 from HTTP/1.1."""

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

# No HTTP/1.1 method begins like the HTTP/2 preface.
_TELLING_BYTES: Final = 4


class Opening(asyncio.Protocol):
    """Hands a new connection over once its protocol is known, and closes one that does not show its protocol in time.

    Args:
        server: server to which the connection belongs.
        connection: accepted socket; closed with the opening.
        tls: TLS context of the connection.
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
        """Start the opening. A TLS caller costs a descriptor and a timer until it sends something."""
        self._server.opening.add(self)
        self.hurry(self._server.limits.handshake_seconds)
        if self._tls is None:
            self.introduce()
        else:
            self._loop.add_reader(self._connection, self._hear)

    def introduce(self) -> None:
        """Give the connection its transport, after a handshake if TLS is used."""
        self._introduction = self._loop.create_task(self._introduce())
        self._server.introductions.add(self._introduction)
        self._introduction.add_done_callback(self._server.introductions.discard)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Continue with the protocol that TLS has negotiated, if TLS is used."""
        # uvloop's transports are not a subclass.
        self._transport = cast("asyncio.Transport", transport)
        self._server.handshakes.end(self)
        tls = transport.get_extra_info("ssl_object")
        agreed = None if tls is None else tls.selected_alpn_protocol()
        if agreed is not None:
            self._hand_over(agreed == "h2")

    def data_received(self, data: bytes) -> None:
        """Detect the protocol from the bytes that have arrived."""
        self._received += data
        received = self._received[: len(PREFACE)]
        if not PREFACE.startswith(received):
            self._hand_over(is_http2=False)
        elif len(received) >= _TELLING_BYTES:
            self._hand_over(is_http2=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Discard the opening."""
        del exc
        self._leave()

    def hurry(self, seconds: float) -> None:
        """Give the caller ``seconds`` from now to show its protocol."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._server.alarms.after(seconds, self.abort)

    def abort(self) -> None:
        """End the opening at once."""
        if self._transport is not None:
            self._transport.abort()
        elif self._introduction is not None:
            # The transport, which is not known here yet, reads the end of the stream and closes.
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
            """The caller disconnected, or does not speak TLS."""
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
