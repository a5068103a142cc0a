"""One connection to one server: HTTP/2 streams over an asyncio transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol, cast

from grpc import StatusCode

from grpc_http2.alarms import Alarm, alarms_of
from grpc_http2.client.calls.stream import Failure, Headers, Stream
from grpc_http2.client.keepalive import Keepalive
from grpc_http2.client.settings import ChannelSettings
from grpc_http2.engine import (
    MAX_CONCURRENT_STREAMS,
    ConnectionClosed,
    DataReceived,
    EngineError,
    ErrorCode,
    Event,
    GoAwayReceived,
    ResponseReceived,
    SettingsReceived,
    StreamClosed,
    TrailersReceived,
    client_connection,
)
from grpc_http2.turn import Turn

_WRITE_BYTES: Final = 256 << 10
_GATE_BYTES: Final = 64 << 10
# A peer that does not read would keep a closed transport open forever.
_CLOSE_SECONDS: Final = 1.0

# From ``PROTOCOL-HTTP2.md``, "Errors"; all other codes map to INTERNAL.
_CODES: Final[Mapping[int, StatusCode]] = {
    ErrorCode.REFUSED_STREAM: StatusCode.UNAVAILABLE,
    ErrorCode.CANCEL: StatusCode.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: StatusCode.PERMISSION_DENIED,
}


class Owner(Protocol):
    """Owner of a connection. Methods are called in the connection's turn, before the affected streams are notified."""

    def connection_leaves(self, connection: Connection) -> None:
        """Handle a connection that accepts no further streams, and ends with its existing ones."""

    def connection_gone(self, connection: Connection, *, hangs: bool) -> None:
        """Handle the end of the connection. ``hangs``: the server did not answer a ping."""

    def room_made(self) -> None:
        """Handle possible room for a further stream."""


class Connection(asyncio.Protocol):
    """The asyncio protocol of a transport.

    Everything that is sent in one turn of the loop is written together at the end of the turn. The engine may already
    know that the connection or a stream has ended while earlier events are still being delivered here; an operation
    that fails for this reason is no longer needed.

    Args:
        owner: notified of changes to the connection.
        settings: limits and timings.
    """

    def __init__(self, owner: Owner, settings: ChannelSettings) -> None:
        self._owner = owner
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._alarms = alarms_of(self._loop)
        self._turn = Turn.of_running_loop()
        self._engine = client_connection(
            max_metadata_bytes=settings.max_metadata_bytes,
            stream_window_bytes=settings.stream_window_bytes,
            connection_window_bytes=settings.connection_window_bytes,
        )
        self._transport: asyncio.Transport | None = None
        # A stream without a listener is ``None``, and counts until it is closed.
        self._streams: dict[int, Stream | None] = {}
        self._gated: dict[int, Stream] = {}
        self._most_streams = 0
        self._last = 0
        self._flushed = 0
        self._paused = False
        self._leaving = False
        self._keepalive = Keepalive(self._engine, settings.pings, self._turn, self._alarms)
        self._end_alarm: Alarm | None = None
        self._is_over = False
        self._reason = "the connection was lost"
        self.opened: asyncio.Future[None] = self._loop.create_future()
        """Future that is done once the server has sent its SETTINGS; fails if the connection ends before that."""
        self.closed: asyncio.Future[None] = self._loop.create_future()
        """Future that is done once the transport is closed."""
        # Nothing may be waiting for ``opened`` when it fails; asyncio would log the exception as never retrieved.
        self.opened.add_done_callback(_retrieve)

    @property
    def has_room(self) -> bool:
        """Whether a further stream can be opened now."""
        return len(self._streams) < self._most_streams and not self._leaving and not self._is_over

    @property
    def is_leaving(self) -> bool:
        """Whether the connection accepts no further streams, or has ended."""
        return self._leaving or self._is_over

    # Interface for calls.

    def begin(self, stream: Stream, headers: Headers, body: bytes, *, ends: bool) -> int:
        """Open a stream, and return its identifier.

        Args:
            stream: notified of the server's response.
            headers: headers of the request.
            body: messages that are available so far.
            ends: whether these are all messages of the request.

        Raises:
            EngineError: the connection accepts no further streams.

        REQUIRES: ``has_room``
        """
        engine = self._engine
        number = engine.send_request(headers)
        if body:
            engine.send_data(number, body, end_stream=ends)
        elif ends:
            engine.end_stream(number)
        self._streams[number] = stream
        self._last = number
        self._turn.write(self)
        return number

    def send(self, number: int, body: bytes, *, ends: bool) -> None:
        """Send a further part of a request."""
        if self._is_over or self._streams.get(number) is None:
            return
        with suppress(EngineError):
            if body:
                self._engine.send_data(number, body, end_stream=ends)
            elif ends:
                self._engine.end_stream(number)
        self._turn.write(self)

    def is_full(self, number: int) -> bool:
        """Return whether too much of a request is still queued; if so, its stream is notified once less is queued."""
        stream = self._streams.get(number)
        if stream is None or self._engine.queued_body_size(number) <= _GATE_BYTES:
            return False
        self._gated[number] = stream
        return True

    def consumed(self, number: int, amount: int) -> None:
        """Return ``amount`` bytes to the flow-control windows, so that the server may send as many more."""
        if amount and not self._is_over:
            try:  # noqa: SIM105 - on the path of every call
                self._engine.acknowledge_received_data(amount, number)
            except EngineError:
                pass

    def forget(self, number: int, *, reset: bool) -> None:
        """Stop notifying a stream; ``reset``: reset it, whatever its state."""
        if number not in self._streams:
            return
        self._streams[number] = None
        self._gated.pop(number, None)
        if self._is_over:
            return
        try:
            # The server may have answered before it has read the whole request.
            if reset or self._engine.queued_body_size(number):
                self._engine.reset_stream(number, ErrorCode.CANCEL)
                self._turn.write(self)
        except EngineError:
            pass

    def retire(self) -> None:
        """Open no further streams, and close once the existing ones have ended."""
        if self._leaving or self._is_over:
            return
        self._leaving = True
        self._owner.connection_leaves(self)
        self._close_if_done()

    def close(self, reason: str = "the channel was closed") -> None:
        """Fail the active streams, and close the connection."""
        if self._transport is None or self._is_over:
            return
        self._reason = reason
        if not self._transport.is_closing():
            with suppress(EngineError):
                if not self._paused:
                    self._engine.send_goaway(ErrorCode.NO_ERROR)
                    self._transport.write(self._engine.data_to_send())
            self._transport.close()
            self._end_alarm = self._alarms.after(_CLOSE_SECONDS, self._transport.abort)
        self._ended()

    # Callbacks of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the connection preface and the client's SETTINGS."""
        # uvloop's transports do not derive from asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._keepalive.begin(self)
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Handle bytes from the server."""
        self._keepalive.read_at = self._loop.time()
        if self._is_over:
            return
        try:
            self._engine.receive_data(data)
        except EngineError:
            # After this error, the remaining events are meaningless, and the engine has written no GOAWAY.
            self.abort("the server violated the rules of HTTP/2")
            return
        self._take_events()
        self._turn.write(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the active streams."""
        del error
        if self._end_alarm is not None:
            self._end_alarm.cancel()
        self._ended()
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        """Keep outgoing data in the engine, whose queue makes the senders of streams wait."""
        self._paused = True

    def resume_writing(self) -> None:
        """Resume writing."""
        self._paused = False
        self._turn.write(self)

    # Writing.

    def flush(self) -> None:
        """Write pending data, unless the server does not read it."""
        transport = self._transport
        if transport is None or self._is_over:
            return
        while not self._paused:
            data = self._engine.data_to_send(_WRITE_BYTES)
            if not data:
                # Headers are exempt from flow control: those of all opened streams have been written.
                self._flushed = self._last
                break
            transport.write(data)
        # Streams and the connection may have closed with their last bytes.
        self._take_events()
        if self._gated:
            self._open_gates()

    def _open_gates(self) -> None:
        for number, stream in list(self._gated.items()):
            if self._engine.queued_body_size(number) <= _GATE_BYTES:
                del self._gated[number]
                stream.room_made()

    # Events.

    def _take_events(self) -> None:
        for event in self._engine.events():
            take = _HANDLERS.get(type(event))
            if take is not None:
                take(self, event)

    def _on_data(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            self.consumed(event.stream_id, len(event.data))
            return
        if event.data:
            stream.data_received(event.data)
        if event.end_stream:
            stream.trailers_received(())

    def _on_response(self, event: ResponseReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        if event.end_stream:
            stream.trailers_received(event.headers)
        else:
            stream.headers_received(event.headers)

    def _on_trailers(self, event: TrailersReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.trailers_received(event.headers)

    def _on_closed(self, event: StreamClosed) -> None:
        # After a GOAWAY, streams may be closed that were never registered here.
        stream = self._streams.pop(event.stream_id, None)
        self._gated.pop(event.stream_id, None)
        if self._leaving:
            self._close_if_done()
        else:
            self._owner.room_made()
        if stream is not None:
            stream.stream_failed(_failure_of(event.error_code))

    def _on_settings(self, _: SettingsReceived) -> None:
        try:
            most = self._engine.remote_settings.get(MAX_CONCURRENT_STREAMS, self._settings.most_streams)
        except EngineError:
            # Data that was received after the SETTINGS has ended the connection.
            return
        self._most_streams = min(most, self._settings.most_streams)
        if not self.opened.done():
            self.opened.set_result(None)
        else:
            self._owner.room_made()

    def _on_goaway(self, _: GoAwayReceived) -> None:
        # The engine closes the streams that the server does not accept, with REFUSED_STREAM.
        self.retire()

    def _on_connection_closed(self, _: ConnectionClosed) -> None:
        self.close("the server ended the connection")

    # Shutdown.

    def _close_if_done(self) -> None:
        if not self._streams:
            self.close("the connection was renewed")

    def abort(self, reason: str) -> None:
        """Fail the active streams, and end the connection at once."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()
        self._ended()

    def _ended(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._keepalive.end()
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(self._reason))
        self._owner.connection_gone(self, hangs=self._keepalive.hangs)
        streams, self._streams = self._streams, {}
        self._gated.clear()
        for number, stream in streams.items():
            if stream is not None:
                stream.stream_failed(Failure(StatusCode.UNAVAILABLE, self._reason, unseen=number > self._flushed))


_HANDLERS: Final[Mapping[type[Event], Callable[[Connection, Any], None]]] = {
    DataReceived: Connection._on_data,  # noqa: SLF001 - methods of the same module
    ResponseReceived: Connection._on_response,  # noqa: SLF001
    TrailersReceived: Connection._on_trailers,  # noqa: SLF001
    StreamClosed: Connection._on_closed,  # noqa: SLF001
    SettingsReceived: Connection._on_settings,  # noqa: SLF001
    GoAwayReceived: Connection._on_goaway,  # noqa: SLF001
    ConnectionClosed: Connection._on_connection_closed,  # noqa: SLF001
}


def _failure_of(error: int) -> Failure:
    if error == ErrorCode.REFUSED_STREAM:
        return Failure(StatusCode.UNAVAILABLE, "the server did not accept the call", unseen=True)
    return Failure(_CODES.get(error, StatusCode.INTERNAL), f"the server ended the call with HTTP/2 error {error}")


def _retrieve(opened: asyncio.Future[None]) -> None:
    if not opened.cancelled():
        opened.exception()
