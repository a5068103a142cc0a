"""One call as the server sees it: its request, its answer, and why it may end before that."""

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
    from grpc_http2.server.connection import ServerConnection
    from grpc_http2.server.methods import Method
    from grpc_http2.server.request_head import RequestHead
    from grpc_http2.server.request_stream import RequestStream


_OK: Final[Header] = (b"grpc-status", b"0")
_OK_TRAILERS: Final[Sequence[Header]] = (_OK,)
FAULT_MESSAGE: Final = "the service failed on this call; its log tells why"
"""Message of the status where a handler raised what no status is made of."""

_HEADERS: Final[Sequence[Header]] = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", ENCODINGS),
)
# Smaller messages are bounded by the number of calls.
_SMALL_BYTES: Final = 4 << 10


class Ended(enum.Enum):
    """Why a call ended before its answer."""

    CALLER_LEFT = enum.auto()
    DEADLINE = enum.auto()


class ServerCall:
    """One call. Whoever serves it ends it with :meth:`answer` or :meth:`fail`, now or later, on the same event loop.

    Args:
        connection: where it came from.
        stream_id: the stream of that connection.
        head: its headers.
        method: what serves it.
    """

    # What most calls do not need they have from their class: one is made for each call.
    deadline: float | None = None
    """When the caller waits no more, in seconds of ``time.monotonic()``; ``None``: nobody has said."""
    message = b""
    """The request of a call that takes one message, once it is complete."""
    stream: RequestStream | None = None
    """The requests of a call that takes a stream of messages."""
    on_end: Callable[[Ended], object] | None = None
    """Told when the caller leaves, and when the deadline passes; in the latter case the call is still to be ended."""
    ended = False
    """Whether the call has its status, or nobody is left who reads one."""
    request_ended = False
    """Whether the caller has said all that it wants to say."""
    headers_sent = False
    sends_gzip = False
    """Whether the messages of the answer are compressed."""
    _body: bytearray | None = None
    _alarm: Alarm | None = None
    _held = 0
    _seen_at: float | None = None

    def __init__(self, connection: ServerConnection, stream_id: int, head: RequestHead, method: Method) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.head = head
        self.method = method

    # What whoever serves the call uses.

    @property
    def path(self) -> str:
        """The path of the call: ``/package.Service/Method``."""
        return self.head.path

    @property
    def accepts_gzip(self) -> bool:
        """Whether the caller reads compressed messages."""
        return GZIP in self.head.headers.get(b"grpc-accept-encoding", b"")

    def metadatum(self, key: str) -> str | None:
        """Return the value of one key of the caller's metadata; the first where there are several."""
        value = self.head.headers.get(key.encode("ascii"))
        return None if value is None else value.decode("latin-1")

    def metadata(self) -> tuple[Metadatum, ...]:
        """Return the caller's metadata. Raises WireError where a binary value is not base64."""
        return metadata_of(self.head.pairs)

    def peer(self) -> str:
        """Return the caller's address as gRPC writes it."""
        return self.connection.peer()

    def certificate(self) -> bytes | None:
        """Return the certificate that the caller proved to have, in PEM; ``None`` without one."""
        return self.connection.certificate()

    def answer(self, message: bytes, metadata: Sequence[Header] = ()) -> None:
        """End the call with its one message, status OK. Does nothing where the call has ended.

        Args:
            message: serialized.
            metadata: that goes with the status, as headers: names in lower case, values of printable ASCII, which is
                not checked here; :func:`~grpc_http2.wire.metadata_headers` makes them of any metadata.
        """
        if self.ended:
            return
        trailers = (_OK, *metadata) if metadata else _OK_TRAILERS
        self.ended = True
        headers = None if self.headers_sent else (_HEADERS if not self.sends_gzip else self._start(()))
        self.connection.respond(self, headers, framed(message, compressed=self.sends_gzip), trailers)
        self._close()

    def fail(self, code: StatusCode, message: str, metadata: Iterable[Metadatum] = ()) -> None:
        """End the call with a status. Does nothing where the call has ended.

        Args:
            code: of the status; OK ends a stream of responses.
            message: for the caller.
            metadata: that goes with the status; what cannot be sent is logged and becomes INTERNAL.
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
            # Trailers alone: then callers know that nothing was answered, and may try again.
            self.connection.refuse(self, [*_HEADERS[:2], *trailers])
        self._close()

    def send_headers(self, metadata: Sequence[Header] = ()) -> None:
        """Send the headers of the answer before its first message."""
        if not self.headers_sent:
            self.headers_sent = True
            self.connection.send_headers(self.stream_id, self._start(metadata))

    def send_message(self, message: bytes, *, compressed: bool = False) -> None:
        """Send one message of a stream of responses. The writer waits with the connection's ``drained``."""
        if not self.ended:
            self.send_headers()
            self.connection.send_data(self.stream_id, framed(message, compressed=compressed))

    # What the connection calls, in this order.

    def begin(self) -> None:
        """Take in that the headers are there: calls that stream their requests are served from here on."""
        if not self.ended and self.method.streams_requests:
            self.method.open(self)
            self.connection.ready(self)

    def receive(self, data: bytes, *, last: bool) -> None:
        """Take a part of the request."""
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
        """End the call: what serves it has raised an error."""
        log.error("servicer failed", path=self.path, exc_info=error)
        self.fail(StatusCode.INTERNAL, FAULT_MESSAGE)

    def watch_deadline(self) -> None:
        """End the call when its deadline passes, which nobody looked at so far."""
        if self.deadline is not None and self._alarm is None:
            self._alarm = self.connection.alarms.after(self.deadline - time.monotonic(), self.expire)

    def expire(self) -> None:
        """End the call: its deadline has passed."""
        self._alarm = None
        self._tell(Ended.DEADLINE)
        self.fail(StatusCode.DEADLINE_EXCEEDED, "the deadline of the call has passed")

    def leave(self) -> None:
        """End the call: its stream is closed, and its caller has left where there is no answer yet."""
        if not self.ended:
            self.ended = True
            self._tell(Ended.CALLER_LEFT)
            self._close()

    def look(self, now: float) -> None:
        """End a call whose one message does not come. ``now`` is in seconds of ``time.monotonic()``."""
        if self.ended or self.request_ended or self.method.streams_requests:
            return
        if self._seen_at is None:
            self._seen_at = now
        if self.deadline is not None and now >= self.deadline:
            self.expire()
        elif now - self._seen_at >= self.connection.limits.request_seconds:
            self.refuse_request(WireError(StatusCode.DEADLINE_EXCEEDED, "the request did not arrive in time"))

    def refuse_request(self, error: WireError) -> None:
        """End the call: its request is not gRPC, or more than is taken."""
        if not self.ended:
            self._tell(Ended.CALLER_LEFT)
            self.fail(error.code, str(error))

    def _fail_metadata(self, error: ValueError) -> None:
        log.error("metadata cannot be sent", path=self.path, exc_info=error)
        self.fail(StatusCode.INTERNAL, FAULT_MESSAGE)

    def _tell(self, why: Ended) -> None:
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(why)

    def _close(self) -> None:
        # A call is known by what it knows: in a circle, both would stay until the garbage collector comes.
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
            # Nearly always a request is one frame.
            self.message = data[PREFIX_BYTES:]
            if size > _SMALL_BYTES:
                self._hold(size)
            self.connection.ready(self)
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
                self.connection.ready(self)
        except WireError as error:
            self.refuse_request(error)

    def _hold(self, size: int) -> None:
        """Count ``size`` bytes of this call, until it ends, among what the server holds of requests."""
        self.connection.hold(size - self._held)
        self._held = size

    def _check_size(self, limit: int) -> None:
        """Raise WireError where the message is too large: as soon as that is announced, before it is held."""
        body = self._body or b""
        announced = int.from_bytes(body[1:5], "big") if len(body) >= PREFIX_BYTES else 0
        if max(announced, len(body) - PREFIX_BYTES) > limit:
            raise WireError(StatusCode.RESOURCE_EXHAUSTED, f"a message is larger than the {limit} bytes that are taken")
        if self.connection.holds_too_much():
            raise WireError(
                StatusCode.RESOURCE_EXHAUSTED, "the service receives as much as it can hold; try again later"
            )

    def _whole_message(self, limit: int) -> bytes:
        body, self._body = bytes(self._body or b""), None
        reader = MessageReader(limit, self.head.headers.get(b"grpc-encoding", IDENTITY))
        reader.take(body)
        message = reader.next()
        if message is None:
            reader.end()
        if message is None or not reader.is_empty:
            raise WireError(StatusCode.UNIMPLEMENTED, "the call takes one message, no more and no less")
        return message

    def _start(self, metadata: Sequence[Header]) -> list[Header]:
        encoding = [(b"grpc-encoding", GZIP)] if self.sends_gzip else []
        return [*_HEADERS, *encoding, *metadata]


CallHandler = Callable[[ServerCall, bytes], Any]
"""Serves a call whose one message is there. It ends the call, now or later; what it returns is not looked at."""
