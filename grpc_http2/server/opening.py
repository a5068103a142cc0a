"""The first bytes of a connection: they tell HTTP/2 from HTTP/1.1."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from grpc_http2.alarms import Alarm
from grpc_http2.engine import PREFACE

if TYPE_CHECKING:
    from grpc_http2.server.server import Server

# No method of HTTP/1.1 begins like the preface of HTTP/2.
_TELLING_BYTES: Final = 4


class Opening(asyncio.Protocol):
    """Hands a new connection over once it is known what it speaks, and closes one that says nothing.

    Args:
        server: whose connection it is.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._alarm: Alarm | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, with what TLS has agreed on where there is TLS."""
        # uvloop's transports are no subclass.
        transport = cast("asyncio.Transport", transport)
        if self._server.is_full:
            transport.abort()
            return
        self._transport = transport
        self._server.opening.add(self)
        self._alarm = self._server.alarms.after(self._server.limits.handshake_seconds, transport.abort)
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
        was_open = self._transport is not None
        self._forget()
        if was_open:
            self._server.fewer()

    def hurry(self, seconds: float) -> None:
        """Give it ``seconds`` more to say something."""
        if self._alarm is not None and self._transport is not None:
            self._alarm.cancel()
            self._alarm = self._server.alarms.after(seconds, self._transport.abort)

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def _hand_over(self, is_http2: bool) -> None:
        transport = self._transport
        self._forget()
        if transport is None:
            return
        protocol = self._server.connection() if is_http2 else self._server.http1.protocol()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._received:
            protocol.data_received(self._received)

    def _forget(self) -> None:
        self._transport = None
        self._server.opening.discard(self)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
