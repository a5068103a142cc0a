"""The HTTP/2 engine. No other module depends on which engine is used.

The engine is sans-IO: bytes go in (``receive_data``), events come out (``events``), bytes to write come out
(``data_to_send``). The engine is ``ngh2``, a binding of libnghttp2. Rules for every user of a :class:`Connection`:

- Drain ``events()`` after every ``receive_data()`` and after every ``data_to_send()``: streams and the connection
  may close only when their last bytes are taken.
- After :class:`EngineError` from ``receive_data()``, and after :class:`ConnectionClosed`, the connection is over: the
  engine has written no GOAWAY, and the remaining events are meaningless.
- ``send_response`` and its siblings raise :class:`EngineError` for a stream that the peer has reset.
- ``reset_stream`` directly after the end of a response discards the response: take ``data_to_send()`` between the two.
- Received data counts against the flow-control windows until ``acknowledge_received_data()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from ngh2 import Configuration, ErrorCode, NGH2Error, Role, Setting
from ngh2 import Connection as _Engine
from ngh2.events import (
    ConnectionClosed,
    DataReceived,
    Event,
    GoAwayReceived,
    PingAcknowledged,
    PingReceived,
    RequestReceived,
    ResponseReceived,
    SettingsReceived,
    StreamClosed,
    TrailersReceived,
)

from grpc_http2.wire import Header

__all__ = [
    "MAX_CONCURRENT_STREAMS",
    "Connection",
    "ConnectionClosed",
    "DataReceived",
    "EngineError",
    "ErrorCode",
    "Event",
    "GoAwayReceived",
    "PingAcknowledged",
    "PingReceived",
    "RequestReceived",
    "ResponseReceived",
    "SettingsReceived",
    "StreamClosed",
    "TrailersReceived",
    "client_connection",
    "server_connection",
]

EngineError = NGH2Error
"""Error for a peer that broke the protocol or a limit, and for an operation that is no longer possible."""

MAX_CONCURRENT_STREAMS: Final[int] = Setting.MAX_CONCURRENT_STREAMS
"""Setting with the number of concurrent streams that the peer accepts."""

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""Connection preface of a client (RFC 9113, section 3.4)."""

# Stream resets: burst, and rate per second. Callers that cancel often are frequently legitimate; the engine's own
# limit is 1,000 and then 33 a second. The cost of reset calls is bounded by the number of streams and by the server's
# limit on unproductive work.
_RESETS: Final = (100_000, 10_000)
_MAX_OUTGOING_HEADERS: Final = 64 << 10


class Connection(Protocol):
    """Part of the engine's interface that is used, so that another engine can replace this one."""

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Process bytes from the peer. Raises EngineError."""

    def events(self) -> list[Event]:
        """Return the events since the last call."""

    def data_to_send(self, amount: int | None = None) -> bytes:
        """Return bytes to write to the peer."""

    def send_request(self, headers: Iterable[Header], *, end_stream: bool = False) -> int:
        """Start a request and return its stream identifier. Raises EngineError."""

    def send_response(self, stream_id: int, headers: Iterable[Header], *, end_stream: bool = False) -> None:
        """Send the headers of a response. Raises EngineError."""

    def send_data(self, stream_id: int, data: bytes | bytearray | memoryview, *, end_stream: bool = False) -> None:
        """Send a part of a body. Raises EngineError."""

    def send_trailers(self, stream_id: int, headers: Iterable[Header]) -> None:
        """Send the headers that end a stream. Raises EngineError."""

    def end_stream(self, stream_id: int) -> None:
        """End the body. Raises EngineError."""

    def reset_stream(self, stream_id: int, error_code: int = ...) -> None:
        """Reset a stream."""

    def ping(self, opaque_data: bytes = ...) -> None:
        """Send a ping to the peer."""

    def send_shutdown_notice(self) -> None:
        """Notify the peer that the connection is going to end; streams that are on their way are still accepted."""

    def send_goaway(self, error_code: int = 0, *, last_stream_id: int | None = None, debug_data: bytes = b"") -> None:
        """Send a GOAWAY: no further streams are accepted."""

    def acknowledge_received_data(self, amount: int, stream_id: int) -> None:
        """Return ``amount`` bytes to the flow-control windows of the stream and of the connection."""

    def set_local_window_size(self, window_size: int, *, stream_id: int = 0) -> None:
        """Set the flow-control window, in bytes; stream 0 is the connection."""

    def queued_body_size(self, stream_id: int | None = None) -> int:
        """Return the number of body bytes that are not written yet, of one stream or of all."""

    @property
    def want_write(self) -> bool:
        """Whether there are bytes to write to the peer."""

    @property
    def remote_settings(self) -> Mapping[int, int]:
        """Settings that the peer announced."""


def server_connection(
    *, max_streams: int, max_metadata_bytes: int, stream_window_bytes: int, connection_window_bytes: int
) -> Connection:
    """Return the server's side of a new connection.

    Args:
        max_streams: maximum number of streams that the client may have open concurrently.
        max_metadata_bytes: maximum size of a header block, as announced to clients. Blocks up to four times as large
            reach the server, which refuses their calls one by one; a larger one ends the connection.
        stream_window_bytes: bytes that a stream may send ahead.
        connection_window_bytes: bytes that all streams of the connection may send ahead.
    """
    configuration = Configuration(
        auto_window_update=False,
        stream_reset_rate_limit=_RESETS,
        max_inbound_header_list_size=4 * max_metadata_bytes,
        max_send_header_block_length=_MAX_OUTGOING_HEADERS,
    )
    engine = _Engine(Role.SERVER, configuration)
    engine.initiate_connection(
        {
            Setting.MAX_CONCURRENT_STREAMS: max_streams,
            Setting.INITIAL_WINDOW_SIZE: stream_window_bytes,
            Setting.MAX_HEADER_LIST_SIZE: max_metadata_bytes,
        }
    )
    engine.set_local_window_size(connection_window_bytes)
    return engine


def client_connection(*, max_metadata_bytes: int, stream_window_bytes: int, connection_window_bytes: int) -> Connection:
    """Return the client's side of a new connection. Arguments as for :func:`server_connection`."""
    configuration = Configuration(
        auto_window_update=False,
        max_inbound_header_list_size=4 * max_metadata_bytes,
        max_send_header_block_length=_MAX_OUTGOING_HEADERS,
    )
    engine = _Engine(Role.CLIENT, configuration)
    engine.initiate_connection(
        {
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: stream_window_bytes,
            Setting.MAX_HEADER_LIST_SIZE: max_metadata_bytes,
        }
    )
    engine.set_local_window_size(connection_window_bytes)
    return engine
