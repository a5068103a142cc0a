"""One HTTP/2 connection of a caller."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from grpc import StatusCode

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
from grpc_http2.server.calls.call import ServerCall
from grpc_http2.server.calls.request_head import RequestHead
from grpc_http2.server.lifetime import Lifetime
from grpc_http2.server.protection.idle_reads import READ_BYTES, IdleReads
from grpc_http2.server.protection.pacing import CallPacing, ReadPacing
from grpc_http2.server.protection.policing import IdleBytes, PingPolice
from grpc_http2.wire import PREFIX_BYTES, Header, WireError, header_bytes

if TYPE_CHECKING:
    from grpc_http2.server.server import Server


_WRITE_BYTES: Final = 256 << 10
_FRAME_HEADER_BYTES: Final = 9
# Covers the headers of nearly all requests; their actual size is computed only if the sum of a read is conspicuous.
_REQUEST_BYTES: Final = 1024
# More than the acknowledgements of all tolerated pings.
_BODY_BYTES: Final = 256


class ServerStream(Protocol):
    """A request and its response, on a stream of a connection."""

    request_ended: bool
    """Whether the caller has sent its whole request."""

    def begin(self) -> None:
        """Handle the request headers."""

    def receive(self, data: bytes, *, last: bool) -> None:
        """Handle a part of the request."""

    def leave(self) -> None:
        """Handle the end of the stream."""

    def look(self, now: float) -> None:
        """Check time limits. ``now`` is in seconds of ``time.monotonic()``."""


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
        self.streams: dict[int, ServerStream] = {}
        """Received requests whose streams are open."""
        self.known_head: RequestHead | None = None
        """Headers of the last call."""
        self._engine = server_connection(
            max_streams=limits.max_streams,
            max_metadata_bytes=limits.max_metadata_bytes,
            stream_window_bytes=limits.stream_window_bytes,
            connection_window_bytes=limits.connection_window_bytes,
        )
        self._reading = ReadPacing(server.buffer)
        self._pacing = CallPacing(limits.max_unsent_connection_bytes)
        self._room = self._pacing.calls_of_a_turn()
        self._unsent_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._peername: Any = None
        self._tls: ssl.SSLObject | None = None
        self._is_paused = False
        self._held_bytes = 0
        self._max_held_bytes = max(limits.max_buffered_connection_bytes, 2 * limits.max_message_bytes)
        self._writers: dict[int, asyncio.Future[None]] = {}
        self._parked: deque[ServerCall] = deque()
        self._unfinished: list[int] = []
        now = time.monotonic()
        self._lifetime = Lifetime(self._engine, limits, self.alarms, now)
        self._pings = PingPolice(limits)
        self._idle = IdleBytes(limits, now)
        self.idle_reads = IdleReads(limits, now)
        """Unproductive reads that the caller may still cause."""
        self._waits = 0.0

    # Callbacks of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection with the server, and write the server's SETTINGS."""
        # uvloop's transports are not a subclass.
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        # A closed transport may no longer provide these values.
        self._peername = transport.get_extra_info("peername")
        self._tls = transport.get_extra_info("ssl_object")
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
            # The engine writes no GOAWAY, and its remaining events on streams mean nothing.
            self.abort(f"{type(error).__name__}: {error}")
            return
        self._lifetime.heard_at = time.monotonic()
        self._take_events(nbytes)
        if self._engine.want_write or self._lifetime.said_goodbye:
            self.turn.write(self)
        if self._waits:
            self._pause_reading(transport)
            self.alarms.after(self._waits, self._read_on)
            self._waits = 0.0
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
        self._is_paused = True

    def resume_writing(self) -> None:
        """Resume writing."""
        self._is_paused = False
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the calls: no caller is left to answer."""
        del exc
        self._transport = None
        self._end_calls()
        self._count_unsent()
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
            self._pacing.count(len(body))
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
        self.idle_reads.credit += READ_BYTES
        # Callers measure the path with pings whenever they receive data, however little.
        self._pings.forgive()
        self.turn.write(self)

    def answered(self, stream_id: int, *, request_ended: bool) -> None:
        """Handle the completion of a response."""
        self._pings.forgive()
        if not request_ended:
            self._unfinished.append(stream_id)
        self.turn.write(self)

    def reset(self, stream_id: int) -> None:
        """Reset a stream that cannot be answered."""
        self._reset(stream_id, ErrorCode.INTERNAL_ERROR)
        self.turn.write(self)

    async def drained(self, stream_id: int) -> None:
        """Return once the caller has read enough of the response to make room for more, or the stream is closed."""
        if self._unsent(stream_id) <= self.limits.max_unsent_bytes:
            return
        self.flush()
        if self._unsent(stream_id) > self.limits.max_unsent_bytes:
            writer = self._writers[stream_id] = asyncio.get_running_loop().create_future()
            await writer

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

    def hold(self, count: int) -> None:
        """Count ``count`` further request bytes as held; a negative ``count`` releases bytes."""
        self._held_bytes += count
        self.server.held_bytes += count

    def holds_too_much(self) -> bool:
        """Return whether the server holds more request bytes than it may, for this caller or for all."""
        return (
            self._held_bytes > self._max_held_bytes
            or self.server.held_bytes > self.limits.max_buffered_bytes + self.limits.max_message_bytes
        )

    def peer(self) -> str:
        """Return the caller's address in gRPC's notation."""
        client = self.client()
        if client is None:
            return "unknown"
        host, port = client
        return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def client(self) -> tuple[str, int] | None:
        """Return the caller's address and port; ``None`` if the caller has none."""
        name = self._peername
        return (name[0], name[1]) if isinstance(name, tuple) else None

    def certificate(self) -> bytes | None:
        """Return the caller's certificate in PEM; ``None`` without one."""
        found = None if self._tls is None else self._tls.getpeercert(binary_form=True)
        return None if found is None else ssl.DER_cert_to_PEM_cert(found).encode("ascii")

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

    def say_goodbye(self, grace: float) -> None:
        """Drain the connection: the caller's next calls go elsewhere; active calls have ``grace`` seconds."""
        self._lifetime.say_goodbye(self, grace)

    def close(self) -> None:
        """Write pending data, and close the connection."""
        self.flush()
        self._close_transport()

    def abort(self, reason: str) -> None:
        """Close the connection at once."""
        log.debug("connection ended", peer=self.peer(), reason=reason)
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._end_calls()

    def flush(self) -> None:
        """Write pending data, unless the caller does not read it."""
        transport = self._transport
        if transport is None:
            return
        engine = self._engine
        while not (self._is_paused or transport.is_closing()):
            try:
                data = engine.data_to_send(_WRITE_BYTES)
            except EngineError as error:
                self.abort(f"{type(error).__name__}: {error}")
                return
            if data:
                transport.write(data)
                self._count_written(len(data))
            # Streams and the connection may close only with their last bytes, even if nothing is left to write.
            events = engine.events()
            if events:
                self._take_events_of_writing(events)
            if len(data) < _WRITE_BYTES and not (self._unfinished and self._reset_unfinished()):
                break
        if self._writers:
            self._wake_writers()
        self._count_unsent()
        self._room = self._pacing.calls_of_a_turn()
        if self._parked and not self._is_congested():
            self._unpark()
        if self._lifetime.said_goodbye and not self.streams:
            transport.close()

    # Internal.

    def _count_written(self, size: int) -> None:
        if size > _BODY_BYTES:
            # Callers that receive a body send window updates, and pings to measure the path.
            self._pings.forgive()
            self._idle.earn(size)
            self.idle_reads.earn(size)

    def _close_transport(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            self._lifetime.closes()

    def _pause_reading(self, transport: asyncio.Transport) -> None:
        """Leave incoming bytes to the kernel."""
        transport.pause_reading()
        if self._tls is not None and not transport.is_closing():
            # The TLS transport would continue to read until its own large buffer is full.
            cast("Any", transport).set_read_buffer_limits(high=1, low=0)

    def _read_on(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            if self._tls is not None:
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
                self._stream_closed(event.stream_id)
            elif not self._goes_on_after(event):
                return
        self._reading.count(received, idle)
        if idle < 0 and not self._idle.is_charged:
            self.idle_reads.credit -= idle
        else:
            self._charge(events, received, idle)

    def _charge(self, events: Sequence[Event], received: int, idle: int) -> None:
        """Charge a read that brought little of use, or refund what earlier reads were charged for parts of its data."""
        is_charged = idle > 0 or self._idle.is_charged
        if is_charged:
            idle -= sum(header_bytes(event.headers) for event in events if isinstance(event, RequestReceived))
        if idle < 0:
            self.idle_reads.credit -= idle
        else:
            wasted = max(0, idle - self._idle.excused)
            if self.idle_reads.is_too_much(received, wasted, self._lifetime.heard_at):
                self._waits = self.server.idle_reads.wait(wasted, self._lifetime.heard_at)
        # After the final GOAWAY, the engine reports no further requests.
        if is_charged and not self._lifetime.said_goodbye and self._idle.is_too_much(idle, self._lifetime.heard_at):
            self._hang_up(b"too many frames without use")

    def _goes_on_after(self, event: Event) -> bool:
        """Handle an event that few reads bring; return whether the connection continues."""
        if isinstance(event, TrailersReceived):
            stream = self.streams.get(event.stream_id)
            if stream is not None and not stream.request_ended:
                stream.receive(b"", last=True)
        elif isinstance(event, PingReceived):
            if self._pings.is_too_many(self._lifetime.heard_at):
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
                self._stream_closed(event.stream_id)
            elif isinstance(event, ConnectionClosed):
                self._close_transport()

    def _open(self, event: RequestReceived) -> None:
        stream = self.server.open(self, event.stream_id, event.headers)
        self.streams[event.stream_id] = stream
        stream.begin()
        if event.end_stream:
            stream.receive(b"", last=True)

    def ready(self, call: ServerCall) -> None:
        """Serve a call: in this turn if the caller reads its responses, otherwise once it does."""
        if self._parked or self._room <= 0 or self._is_congested():
            self._parked.append(call)
            self.turn.write(self)
            if self.holds_too_much():
                call.refuse_request(
                    WireError(StatusCode.RESOURCE_EXHAUSTED, "the answers of earlier calls are not read")
                )
        else:
            self._room -= 1
            self.turn.serve(call)

    def _is_congested(self) -> bool:
        if self._is_paused:
            return True
        if not self._unsent_bytes:
            return False
        limits = self.limits
        is_full = self.server.unsent_bytes > limits.max_unsent_server_bytes
        most = limits.max_unsent_bytes if is_full else limits.max_unsent_connection_bytes
        return len(self.streams) > 1 and self._engine.queued_body_size() > most

    def _unpark(self) -> None:
        while self._parked and self._room > 0:
            call = self._parked.popleft()
            if not call.ended:
                self._room -= 1
                self.turn.serve(call)
        # However these calls end, the next turn continues from here.
        self.turn.write(self)

    def _count_unsent(self) -> None:
        unsent = 0 if self._transport is None else self._engine.queued_body_size()
        if unsent != self._unsent_bytes:
            self.server.unsent_bytes += unsent - self._unsent_bytes
            self._unsent_bytes = unsent

    def _reset_unfinished(self) -> bool:
        """Reset the streams of callers that have their response and are still sending; return whether any was reset.

        REQUIRES: all writable data was taken from the engine; a reset before that discards the response.
        """
        before = len(self._unfinished)
        waiting = []
        for stream_id in self._unfinished:
            if self._unsent(stream_id):
                waiting.append(stream_id)
            elif stream_id in self.streams:
                self._reset(stream_id, ErrorCode.NO_ERROR)
        self._unfinished = waiting
        return len(waiting) < before

    def _stream_closed(self, stream_id: int) -> None:
        # Streams that were never announced may close, too.
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            stream.leave()
        writer = self._writers.pop(stream_id, None)
        if writer is not None and not writer.done():
            writer.set_result(None)

    def _wake_writers(self) -> None:
        for stream_id, writer in list(self._writers.items()):
            if self._unsent(stream_id) <= self.limits.max_unsent_bytes:
                del self._writers[stream_id]
                if not writer.done():
                    writer.set_result(None)

    def _unsent(self, stream_id: int) -> int:
        try:
            return self._engine.queued_body_size(stream_id)
        except (EngineError, ValueError):
            return 0

    def _reset(self, stream_id: int, code: ErrorCode) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.request_ended:
            # Until the reset reaches the caller, the caller continues to send, and the engine does not report the data.
            self._idle.excuse(self.limits.stream_window_bytes)
        try:
            self._engine.reset_stream(stream_id, code)
        except EngineError:
            return

    def _hang_up(self, reason: bytes) -> None:
        """End the connection of a caller that exceeds its limits."""
        log.info("connection ended", peer=self.peer(), reason=reason.decode())
        with contextlib.suppress(EngineError):
            self._engine.send_goaway(ErrorCode.ENHANCE_YOUR_CALM, debug_data=reason)
        self.close()
        self._end_calls()

    def _end_calls(self) -> None:
        self._parked.clear()
        for stream_id in list(self.streams):
            self._stream_closed(stream_id)
