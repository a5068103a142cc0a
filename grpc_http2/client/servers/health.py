"""Health of a server as reported by ``grpc.health.v1.Health/Watch``, by gRPC's proposal A17."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from grpc import StatusCode

from grpc_http2.client.calls.stream import Failure, Headers
from grpc_http2.client.connection import Connection
from grpc_http2.varint import varint
from grpc_http2.wire import IDENTITY, MessageReader, WireError, framed, status_of

WATCH: Final = "/grpc.health.v1.Health/Watch"
_SERVING: Final = 1
_MAX_BYTES: Final = 1 << 10


class HealthWatch:
    """Watch of one service over one connection.

    Args:
        connection: connection to the server.
        headers: headers of the request.
        service: full name of a gRPC service.
        on_health: called with whether the service is serving, initially and on every change.
        on_end: called when the watch has ended and the connection has not.

    Raises:
        EngineError: the connection accepts no further streams.
    """

    def __init__(
        self,
        connection: Connection,
        headers: Headers,
        service: str,
        on_health: Callable[[bool], None],
        on_end: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._on_health = on_health
        self._on_end = on_end
        self._reader = MessageReader(_MAX_BYTES, IDENTITY)
        self._number = connection.begin(self, headers, framed(_request(service)), ends=True)

    def close(self) -> None:
        """End the watch."""
        self._connection.forget(self._number, reset=True)

    def headers_received(self, headers: Headers) -> None:
        """Read the compression of messages from the headers."""
        self._reader = MessageReader(_MAX_BYTES, dict(headers).get(b"grpc-encoding", IDENTITY))

    def data_received(self, data: bytes) -> None:
        """Report the health in each message."""
        self._connection.consumed(self._number, len(data))
        try:
            for message in self._reader.feed(data):
                self._on_health(_status(message) == _SERVING)
        except WireError:
            self.close()
            self._on_end()

    def trailers_received(self, headers: Headers) -> None:
        """Report the end of the watch. A server without a health service counts as serving; its health is unknown."""
        self._connection.forget(self._number, reset=False)
        status = status_of(dict(headers))
        if status is not None and status[0] is StatusCode.UNIMPLEMENTED:
            self._on_health(True)
        else:
            self._on_end()

    def stream_failed(self, failure: Failure) -> None:
        """Report the end of the watch."""
        del failure
        self._on_end()

    def room_made(self) -> None:
        """Do nothing: the request is small."""


def _request(service: str) -> bytes:
    """Return a ``HealthCheckRequest``: field 1 is the service."""
    name = service.encode()
    return b"\x0a" + varint(len(name)) + name


def _status(message: bytes) -> int:
    """Return field 1, the only field of a ``HealthCheckResponse``; 0 (UNKNOWN) if the field is absent."""
    return message[1] if len(message) == 2 and message[0] == 0x08 else 0
