"""One HTTP/2 connection of a caller."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from grpc_http2.alarms import Alarms
from grpc_http2.engine import (
    ConnectionClosed,
    DataReceived,
    EngineError,
    ErrorCode,
    Event,
    PingAcknowledged,
    PingReceived,
    RequestReceived,
    StreamClosed,
    TrailersReceived,
    server_connection,
)
from grpc_http2.log import log
from grpc_http2.server.backlog import Backlog
from grpc_http2.server.calls.call import ServerCall
from grpc_http2.server.calls.request_head import RequestHead
from grpc_http2.server.lifetime import Lifetime
from grpc_http2.server.peer import Peer
from grpc_http2.server.protection.charges import Charges
from grpc_http2.server.protection.pacing import ReadPacing
from grpc_http2.server.protection.request_bytes import RequestBytes
from grpc_http2.server.streams import OpenStreams
from grpc_http2.wire import PREFIX_BYTES, Header

if TYPE_CHECKING:
    from grpc_http2.server.server import Server


_WRITE_BYTES: Final = 256 << 10
_FRAME_HEADER_BYTES: Final = 9
# Covers the headers of nearly all requests; their actual size is computed only if the sum of a read is conspicuous.
_REQUEST_BYTES: Final = 1024


class ServerConnection(asyncio.BufferedProtocol):
    """Receives requests from one caller, and writes the responses.

    Args:
        server: server to which the connection belongs.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.limits = limits = server.limits
        self.turn = server.turn
        self.alarms: Alarms = server.alarms
        self.known_head: RequestHead | None = None
        """Headers of the last call."""
        self._engine = server_connection(
            max_streams=limits.max_streams,
            max_metadata_bytes=limits.max_metadata_bytes,
            stream_window_bytes=limits.stream_window_bytes,
            connection_window_bytes=limits.connection_window_bytes,
        )
        self.peer = Peer()
        self._transport: asyncio.Transport | None = None
        self._reading = ReadPacing(server.buffer)
        now = time.monotonic()
        self._lifetime = Lifetime(self._engine, limits, self.alarms, now)
        self.charges = Charges(limits, server.idle_reads, now)
        self.request_bytes = RequestBytes(server, limits)
        self.backlog = Backlog(server, limits, self.turn, self._engine, self.request_bytes)
        self.streams = OpenStreams(self._engine, limits, self.backlog, self.charges.idle_bytes)

    # Callbacks of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection with the server, and write the server's SETTINGS."""
        # uvloop's transports are not a subclass.
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        self.peer = Peer.of(transport)
        self.server.opened(self)
        self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer for the next bytes. All connections share it: each read is processed before the next."""
        del sizehint
        return self._reading.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Handle the bytes that have arrived."""
        transport = self._transport
        if transport is None:
            return
        buffer = self._reading.buffer
        try:
            self._engine.receive_data(buffer[:nbytes])
        except EngineError as error:
            # The engine writes no GOAWAY, and its remaining events on streams are meaningless.
            self.abort(f"{type(error).__name__}: {error}")
            return
        self._lifetime.heard_at = time.monotonic()
        self._take_events(nbytes)
        if self._engine.want_write or self._lifetime.sent_goaway:
            self.turn.write(self)
        charges = self.charges
        if charges.pause_seconds:
            self._pause_reading(transport)
            self.alarms.after(charges.pause_seconds, self._read_on)
            charges.pause_seconds = 0.0
        elif nbytes == len(buffer):
            # More bytes may be waiting. The other connections have their turn first.
            transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)

    def data_received(self, data: bytes) -> None:
        """Handle the bytes that were read before the connection was known to use HTTP/2."""
        while data and self._transport is not None:
            buffer = self._reading.buffer
            part, data = data[: len(buffer)], data[len(buffer) :]
            buffer[: len(part)] = part
            self.buffer_updated(len(part))

    def eof_received(self) -> bool:
        """Close the connection: gRPC does not use half-closed connections."""
        return False

    def pause_writing(self) -> None:
        """Stop writing: the caller does not read."""
        self.backlog.is_paused = True

    def resume_writing(self) -> None:
        """Resume writing."""
        self.backlog.is_paused = False
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the calls: no caller is left to answer."""
        del exc
        self._transport = None
        self.streams.close_all()
        self.backlog.clear()
        self.server.closed(self)

    # Interface for calls.

    def respond(
        self, call: ServerCall, headers: Sequence[Header] | None, body: bytes, trailers: Sequence[Header]
    ) -> None:
        """Send the rest of a response, and its status."""
        engine, stream_id = self._engine, call.stream_id
        try:
            if headers is not None:
                engine.send_response(stream_id, headers)
            if body:
                engine.send_data(stream_id, body)
            engine.send_trailers(stream_id, trailers)
            self.backlog.pacing.count(len(body))
        except EngineError:
            # The caller has just cancelled or disconnected.
            return
        self.answered(call.stream_id, request_ended=call.request_ended)

    def refuse(self, call: ServerCall, headers: Sequence[Header]) -> None:
        """Send a status and nothing else (Trailers-Only)."""
        try:
            self._engine.send_response(call.stream_id, headers, end_stream=True)
        except EngineError:
            return
        self.answered(call.stream_id, request_ended=call.request_ended)

    def send_headers(self, stream_id: int, headers: Sequence[Header]) -> None:
        """Send the headers of a response, without ending the response."""
        try:
            self._engine.send_response(stream_id, headers)
        except EngineError:
            return
        self.turn.write(self)

    def send_data(self, stream_id: int, data: bytes, *, last: bool = False) -> None:
        """Send a part of a response."""
        try:
            self._engine.send_data(stream_id, data, end_stream=last)
        except EngineError:
            return
        self.charges.earn_message()
        self.turn.write(self)

    def answered(self, stream_id: int, *, request_ended: bool) -> None:
        """Handle the completion of a response."""
        self.charges.pings.forgive()
        if not request_ended:
            self.streams.unfinished.append(stream_id)
        self.turn.write(self)

    def reset(self, stream_id: int) -> None:
        """Reset a stream that cannot be answered."""
        self.streams.reset(stream_id, ErrorCode.INTERNAL_ERROR)
        self.turn.write(self)

    async def drained(self, stream_id: int) -> None:
        """Return once the caller has read enough of the response to make room for more, or the stream is closed."""
        if not self.backlog.has_room(stream_id):
            self.flush()
            await self.backlog.wait_for_room(stream_id)

    def acknowledge(self, stream_id: int, count: int) -> None:
        """Let the caller send ``count`` bytes more; the window update goes out with the connection's next write."""
        if count:
            try:
                self._engine.acknowledge_received_data(count, stream_id)
            except (EngineError, ValueError):
                # The stream is closed, and its window with it.
                return

    def make_room(self, stream_id: int, count: int) -> None:
        """Let the caller send ``count`` bytes more, and write the window update in this turn."""
        self.acknowledge(stream_id, count)
        self.turn.write(self)

    # Interface for the server.

    @property
    def is_idle(self) -> bool:
        """Whether no call is active."""
        return not self.streams

    @property
    def is_open(self) -> bool:
        """Whether the connection has a transport."""
        return self._transport is not None

    @property
    def is_closing(self) -> bool:
        """Whether the transport still exists, but is closing."""
        return self._transport is not None and self._transport.is_closing()

    def write_soon(self) -> None:
        """Write pending data to the caller in this turn."""
        self.turn.write(self)

    def look(self, now: float) -> None:
        """Check time limits. ``now`` is in seconds of ``time.monotonic()``."""
        self._lifetime.look(self, now)
        for stream in list(self.streams.values()):
            stream.look(now)

    def drain(self, grace: float) -> None:
        """Drain the connection: the caller's next calls go elsewhere; active calls have ``grace`` seconds."""
        self._lifetime.drain(self, grace)

    def close(self) -> None:
        """Write pending data, and close the connection."""
        self.flush()
        self._close_transport()

    def abort(self, reason: str) -> None:
        """Close the connection at once."""
        log.debug("connection ended", peer=self.peer.name(), reason=reason)
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self.streams.close_all()

    def flush(self) -> None:
        """Write pending data, unless the caller does not read it."""
        transport = self._transport
        if transport is None:
            return
        engine, backlog, streams = self._engine, self.backlog, self.streams
        while not (backlog.is_paused or transport.is_closing()):
            try:
                data = engine.data_to_send(_WRITE_BYTES)
            except EngineError as error:
                self.abort(f"{type(error).__name__}: {error}")
                return
            if data:
                transport.write(data)
                self.charges.earn(len(data))
            # Streams and the connection may close only with their last bytes, even if nothing is left to write.
            events = engine.events()
            if events:
                self._take_events_of_writing(events)
            if len(data) < _WRITE_BYTES and not (streams.unfinished and streams.reset_unfinished()):
                break
        backlog.written(self)
        if self._lifetime.sent_goaway and not streams:
            transport.close()

    # Internal.

    def _close_transport(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            self._lifetime.closes()

    def _pause_reading(self, transport: asyncio.Transport) -> None:
        """Leave incoming bytes to the kernel."""
        transport.pause_reading()
        if self.peer.uses_tls and not transport.is_closing():
            # The TLS transport would continue to read until its own large buffer is full.
            cast("Any", transport).set_read_buffer_limits(high=1, low=0)

    def _read_on(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            if self.peer.uses_tls:
                cast("Any", transport).set_read_buffer_limits()
            transport.resume_reading()

    def _take_events(self, received: int) -> None:
        idle = received
        streams = self.streams
        events = self._engine.events()
        for event in events:
            if isinstance(event, DataReceived):
                size = len(event.data)
                # A frame that may be a message is productive as a whole.
                idle -= size + _FRAME_HEADER_BYTES if size >= PREFIX_BYTES else size
                stream = streams.get(event.stream_id)
                if stream is not None:
                    stream.receive(event.data, last=event.end_stream)
                else:
                    self.acknowledge(event.stream_id, len(event.data))
            elif isinstance(event, RequestReceived):
                idle -= _REQUEST_BYTES
                self._open(event)
            elif isinstance(event, StreamClosed):
                streams.close(event.stream_id)
            elif not self._goes_on_after(event):
                return
        self._reading.count(received, idle)
        charges, lifetime = self.charges, self._lifetime
        if idle < 0 and not charges.idle_bytes.is_charged:
            charges.idle_reads.credit -= idle
        elif charges.charge(events, received, idle, lifetime.heard_at, may_end=not lifetime.sent_goaway):
            self._hang_up(b"too many frames without use")

    def _goes_on_after(self, event: Event) -> bool:
        """Handle an event that few reads bring; return whether the connection continues."""
        if isinstance(event, TrailersReceived):
            stream = self.streams.get(event.stream_id)
            if stream is not None and not stream.request_ended:
                stream.receive(b"", last=True)
        elif isinstance(event, PingReceived):
            if self.charges.pings.is_too_many(self._lifetime.heard_at):
                self._hang_up(b"too_many_pings")
                return False
        elif isinstance(event, PingAcknowledged):
            self._lifetime.ping_answered(self, event.opaque_data)
        elif isinstance(event, ConnectionClosed):
            self.close()
            return False
        return True

    def _take_events_of_writing(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, StreamClosed):
                self.streams.close(event.stream_id)
            elif isinstance(event, ConnectionClosed):
                self._close_transport()

    def _open(self, event: RequestReceived) -> None:
        stream = self.server.open(self, event.stream_id, event.headers)
        self.streams[event.stream_id] = stream
        stream.begin()
        if event.end_stream:
            stream.receive(b"", last=True)

    def _hang_up(self, reason: bytes) -> None:
        """End the connection of a caller that exceeds its limits."""
        log.info("connection ended", peer=self.peer.name(), reason=reason.decode())
        with contextlib.suppress(EngineError):
            self._engine.send_goaway(ErrorCode.ENHANCE_YOUR_CALM, debug_data=reason)
        self.close()
        self.streams.close_all()
