"""One call on the server: its request, its response, and the reasons for an end without a response."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from grpc import StatusCode

from grpc_http2.alarms import Alarm
from grpc_http2.log import log
from grpc_http2.wire import (
    ENCODINGS,
    GZIP,
    IDENTITY,
    PREFIX_BYTES,
    Header,
    MessageReader,
    Metadatum,
    WireError,
    framed,
    metadata_of,
    status_headers,
)

if TYPE_CHECKING:
    from grpc_http2.server.calls.methods import Method
    from grpc_http2.server.calls.request_head import RequestHead
    from grpc_http2.server.calls.request_stream import RequestStream
    from grpc_http2.server.connection import ServerConnection


_OK: Final[Header] = (b"grpc-status", b"0")
_OK_TRAILERS: Final[Sequence[Header]] = (_OK,)
FAULT_MESSAGE: Final = "the service failed on this call; the service's log has the reason"
"""Message of the status for a handler that raised an exception that does not map to a status."""

_HEADERS: Final[Sequence[Header]] = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", ENCODINGS),
)
# Smaller messages are not counted: the number of calls bounds them.
_SMALL_BYTES: Final = 4 << 10


class Ended(enum.Enum):
    """Reason why a call ended before its response."""

    CALLER_LEFT = enum.auto()
    DEADLINE = enum.auto()


class ServerCall:
    """One call. Its handler ends the call with :meth:`answer` or :meth:`fail`, now or later, on the same event loop.

    Args:
        connection: connection on which the call arrived.
        stream_id: stream of that connection.
        head: headers of the request.
        method: method that serves the call.
    """

    # Defaults that most calls keep are class attributes, since an instance is created for each call.
    deadline: float | None = None
    """Deadline of the call, in seconds of ``time.monotonic()``; ``None``: the caller set none."""
    message = b""
    """Request message of a call that takes one message, once the message is complete."""
    stream: RequestStream | None = None
    """Request messages of a call that takes a stream of messages."""
    on_end: Callable[[Ended], object] | None = None
    """Called when the caller cancels or disconnects, and when the deadline passes; then the call is not ended yet."""
    ended = False
    """Whether the call has its status, or no caller is left to read one."""
    request_ended = False
    """Whether the caller has sent its whole request."""
    headers_sent = False
    sends_gzip = False
    """Whether response messages are compressed."""
    _body: bytearray | None = None
    _alarm: Alarm | None = None
    _held = 0
    _seen_at: float | None = None

    def __init__(self, connection: ServerConnection, stream_id: int, head: RequestHead, method: Method) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.head = head
        self.method = method

    # Interface for handlers.

    @property
    def path(self) -> str:
        """Path of the call: ``/package.Service/Method``."""
        return self.head.path

    @property
    def accepts_gzip(self) -> bool:
        """Whether the caller accepts compressed messages."""
        return GZIP in self.head.headers.get(b"grpc-accept-encoding", b"")

    def metadatum(self, key: str) -> str | None:
        """Return the value of one key of the caller's metadata; the first value if there are several."""
        value = self.head.headers.get(key.encode("ascii"))
        return None if value is None else value.decode("latin-1")

    def metadata(self) -> tuple[Metadatum, ...]:
        """Return the caller's metadata. Raises WireError if a binary value is not base64."""
        return metadata_of(self.head.pairs)

    def peer(self) -> str:
        """Return the caller's address in gRPC's notation."""
        return self.connection.peer.name()

    def certificate(self) -> bytes | None:
        """Return the certificate with which the caller authenticated, in PEM; ``None`` without one."""
        return self.connection.peer.certificate()

    def answer(self, message: bytes, metadata: Sequence[Header] = ()) -> None:
        """End the call with its one response message and status OK. Has no effect if the call has ended.

        Args:
            message: serialized message.
            metadata: trailing metadata as headers: names in lower case, values in printable ASCII, which is not
                checked here; :func:`~grpc_http2.wire.metadata_headers` converts any metadata to such headers.
        """
        if self.ended:
            return
        trailers = (_OK, *metadata) if metadata else _OK_TRAILERS
        self.ended = True
        headers = None if self.headers_sent else (_HEADERS if not self.sends_gzip else self._start(()))
        self.connection.respond(self, headers, framed(message, compressed=self.sends_gzip), trailers)
        self._close()

    def fail(self, code: StatusCode, message: str, metadata: Iterable[Metadatum] = ()) -> None:
        """End the call with a status. Has no effect if the call has ended.

        Args:
            code: code of the status; OK ends a stream of responses.
            message: message for the caller.
            metadata: trailing metadata; if it cannot be sent, the error is logged and the status becomes INTERNAL.
        """
        if self.ended:
            return
        try:
            trailers = status_headers(code, message, metadata)
        except ValueError as error:
            self._fail_metadata(error)
            return
        self.ended = True
        if self.headers_sent:
            self.connection.respond(self, None, b"", trailers)
        else:
            # Trailers-Only: the caller then knows that no response was sent, and may retry.
            self.connection.refuse(self, [*_HEADERS[:2], *trailers])
        self._close()

    def send_headers(self, metadata: Sequence[Header] = ()) -> None:
        """Send the response headers before the first message."""
        if not self.headers_sent:
            self.headers_sent = True
            self.connection.send_headers(self.stream_id, self._start(metadata))

    def send_message(self, message: bytes, *, compressed: bool = False) -> None:
        """Send one message of a stream of responses. The writer then awaits the connection's ``drained``."""
        if not self.ended:
            self.send_headers()
            self.connection.send_data(self.stream_id, framed(message, compressed=compressed))

    # Called by the connection, in this order.

    def begin(self) -> None:
        """Handle the request headers: a call that streams its requests is served from here on."""
        if not self.ended and self.method.streams_requests:
            self.method.open(self)
            self.connection.backlog.serve(self)

    def receive(self, data: bytes, *, last: bool) -> None:
        """Handle a part of the request."""
        if last:
            self.request_ended = True
        if self.ended:
            self.connection.acknowledge(self.stream_id, len(data))
        elif self.stream is not None:
            self.stream.feed(data, last=last)
        else:
            self.connection.acknowledge(self.stream_id, len(data))
            self._receive_message(data, last=last)

    def fault(self, error: Exception) -> None:
        """Log ``error``, which the method of the call raised, and end the call."""
        log.error("servicer failed", path=self.path, exc_info=error)
        self.fail(StatusCode.INTERNAL, FAULT_MESSAGE)

    def watch_deadline(self) -> None:
        """Set an alarm that ends the call when its deadline passes."""
        if self.deadline is not None and self._alarm is None:
            self._alarm = self.connection.alarms.after(self.deadline - time.monotonic(), self.expire)

    def expire(self) -> None:
        """End the call: its deadline has passed."""
        self._alarm = None
        self._notify(Ended.DEADLINE)
        self.fail(StatusCode.DEADLINE_EXCEEDED, "the deadline of the call has passed")

    def leave(self) -> None:
        """End the call: its stream is closed. Without a response so far, the caller cancelled or disconnected."""
        if not self.ended:
            self.ended = True
            self._notify(Ended.CALLER_LEFT)
            self._close()

    def look(self, now: float) -> None:
        """End a call whose one message does not arrive in time. ``now`` is in seconds of ``time.monotonic()``."""
        if self.ended or self.request_ended or self.method.streams_requests:
            return
        if self._seen_at is None:
            self._seen_at = now
        if self.deadline is not None and now >= self.deadline:
            self.expire()
        elif now - self._seen_at >= self.connection.limits.request_seconds:
            self.refuse_request(WireError(StatusCode.DEADLINE_EXCEEDED, "the request did not arrive in time"))

    def refuse_request(self, error: WireError) -> None:
        """End the call: its request is not gRPC, or exceeds a limit."""
        if not self.ended:
            self._notify(Ended.CALLER_LEFT)
            self.fail(error.code, str(error))

    def _fail_metadata(self, error: ValueError) -> None:
        log.error("metadata cannot be sent", path=self.path, exc_info=error)
        self.fail(StatusCode.INTERNAL, FAULT_MESSAGE)

    def _notify(self, why: Ended) -> None:
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(why)

    def _close(self) -> None:
        # The callback and the alarm refer to the call: a cycle would keep them until the garbage collector runs.
        self.on_end = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._held:
            self._hold(0)
            self._body = None
        if self.stream is not None:
            self.stream.close()

    def _receive_message(self, data: bytes, *, last: bool) -> None:
        limit = self.connection.limits.max_message_bytes
        size = len(data) - PREFIX_BYTES
        if last and self._body is None and data[:1] == b"\0" and int.from_bytes(data[1:5], "big") == size <= limit:
            # Nearly every request is one frame.
            self.message = data[PREFIX_BYTES:]
            if size > _SMALL_BYTES:
                self._hold(size)
            self.connection.backlog.serve(self)
            return
        if self._body is None:
            self._body = bytearray()
        self._body += data
        self._hold(len(self._body))
        try:
            self._check_size(limit)
            if last:
                self.message = self._whole_message(limit)
                self._hold(len(self.message))
                self.connection.backlog.serve(self)
        except WireError as error:
            self.refuse_request(error)

    def _hold(self, size: int) -> None:
        """Count ``size`` bytes of this call, until the call ends, among the request bytes that the server holds."""
        self.connection.request_bytes.hold(size - self._held)
        self._held = size

    def _check_size(self, limit: int) -> None:
        """Raise WireError if the message is too large: as soon as its size is announced, before it is held."""
        body = self._body or b""
        announced = int.from_bytes(body[1:5], "big") if len(body) >= PREFIX_BYTES else 0
        if max(announced, len(body) - PREFIX_BYTES) > limit:
            raise WireError(StatusCode.RESOURCE_EXHAUSTED, f"a message is larger than the limit of {limit} bytes")
        if self.connection.request_bytes.are_too_many():
            raise WireError(
                StatusCode.RESOURCE_EXHAUSTED, "the service has no room for further requests; try again later"
            )

    def _whole_message(self, limit: int) -> bytes:
        body, self._body = bytes(self._body or b""), None
        reader = MessageReader(limit, self.head.headers.get(b"grpc-encoding", IDENTITY))
        reader.take(body)
        message = reader.next()
        if message is None:
            reader.end()
        if message is None or not reader.is_empty:
            raise WireError(StatusCode.UNIMPLEMENTED, "the call must have exactly one message")
        return message

    def _start(self, metadata: Sequence[Header]) -> list[Header]:
        encoding = [(b"grpc-encoding", GZIP)] if self.sends_gzip else []
        return [*_HEADERS, *encoding, *metadata]


CallHandler = Callable[[ServerCall, bytes], Any]
"""Handler of a call whose one message is complete. The handler ends the call, now or later; its result is ignored."""
