"""HTTP/1.1 on the gRPC port: uvicorn's protocol, with limits on the data received before a request is known.

``HttpToolsProtocol`` is not a public interface of uvicorn. Only this module uses it, the version of uvicorn is pinned,
and ``tests/grpc_http2/server/plain_http/test_http1.py`` checks the behaviour that this module relies on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

if TYPE_CHECKING:
    from grpc_http2.server.plain_http.http_exchange import Application

_MAX_HEADER_BYTES: Final = 64 << 10
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Http1:
    """Creates the protocol of each connection, and ends all connections.

    Args:
        application: application that answers the requests.
        on_close: called when a connection has closed.
        header_seconds: time limit for the headers of a request, in seconds.
    """

    def __init__(self, application: Application, on_close: Callable[[], object], header_seconds: float) -> None:
        self._header_seconds = header_seconds
        self._config = Config(
            application,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
        )
        self._config.load()
        self._state = ServerState()
        self._on_close = on_close
        self._is_draining = False

    def protocol(self) -> GuardedHttp:
        """Return the protocol of a new connection."""
        return GuardedHttp(self._config, self._state, {}, asyncio.get_running_loop(), self._on_close)

    def look(self, now: float) -> None:
        """Check time limits, and renew the date header. ``now`` is in seconds of ``time.monotonic()``."""
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        for connection in list(self._state.connections):
            if isinstance(connection, GuardedHttp):
                connection.look(now - self._header_seconds)
        if self._is_draining:
            # Covers connections that were opened in the meantime.
            self.drain()

    def drain(self) -> None:
        """Have connections end with their active requests."""
        self._is_draining = True
        for connection in list(self._state.connections):
            if isinstance(connection, GuardedHttp):
                connection.shutdown()

    def abort(self) -> None:
        """End all connections at once."""
        for connection in list(self._state.connections):
            if isinstance(connection, GuardedHttp):
                connection.transport.abort()

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._state.connections)


class GuardedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which itself limits neither the size of a request's headers nor the time for them."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
        on_close: Callable[[], object],
    ) -> None:
        super().__init__(config, state, app_state, loop)
        self._on_close = on_close
        self._header_bytes = 0
        self._waits_since: float | None = time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Handle the bytes that have arrived, and close the connection if the headers are too large."""
        if self._waits_since is not None:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._waits_since is not None and self._header_bytes > _MAX_HEADER_BYTES:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the active request."""
        super().connection_lost(exc)
        self._on_close()

    def on_message_begin(self) -> None:
        """Start counting: a request has begun."""
        super().on_message_begin()
        if self._waits_since is None:
            self._waits_since, self._header_bytes = time.monotonic(), 0

    def on_headers_complete(self) -> None:
        """Stop counting: the application limits bodies."""
        self._waits_since = None
        super().on_headers_complete()

    def look(self, latest: float) -> None:
        """Close the connection if it has waited for headers since before ``latest`` of ``time.monotonic()``."""
        if self._waits_since is not None and self._waits_since < latest:
            self.transport.close()
