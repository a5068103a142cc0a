"""A call: its attempts, one after the other, until it has a status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from grpc_http2.alarms import Alarm
from grpc_http2.client.calls.headers import metadata_in, status_of_http, timeout_header
from grpc_http2.client.calls.stream import Assignable, Failure, Headers, StreamConnection, size_of
from grpc_http2.engine import EngineError
from grpc_http2.wire import (
    IDENTITY,
    PUSHBACK_KEY,
    Header,
    MessageReader,
    Metadatum,
    WireError,
    framed,
    metadata_headers,
    status_of,
)

if TYPE_CHECKING:
    from grpc_http2.client.channel import Channel

# Maximum number of retries of a call that no server has seen. Such a call is retried even without a retry policy.
_MOST_UNSEEN: Final = 3
# Bytes that a call without a connection may buffer before its writers wait.
_GATE_BYTES: Final = 64 << 10
# Approximately the engine's limit on outgoing headers; the engine's own count adds some bytes for each header.
_MOST_METADATA_BYTES: Final = 60 << 10
_ENCODING: Final = (b"grpc-encoding", b"gzip")
_PUSHBACK: Final = PUSHBACK_KEY.encode()


class Method(NamedTuple):
    """Method of a service."""

    path: str
    serialize: Callable[[Any], bytes] | None
    deserialize: Callable[[bytes], Any] | None


class Options(NamedTuple):
    """Parameters of a call."""

    timeout: float | None
    metadata: Iterable[Metadatum]
    wait_for_ready: bool
    compressed: bool
    affinity: str | None


class Call:
    """Base of the four kinds of calls, with the interface of a ``grpc.aio`` call.

    Args:
        channel: channel that assigns the call to a server.
        method: method to call.
        options: parameters of the call.

    Raises:
        ValueError: the metadata cannot be sent.
    """

    __slots__ = (
        "__weakref__",
        "_alarm",
        "_attempts",
        "_callbacks",
        "_channel",
        "_code",
        "_compressed",
        "_connection",
        "_consumer",
        "_details",
        "_half_closed",
        "_initial",
        "_is_cancelled",
        "_kept",
        "_kept_bytes",
        "_metadata",
        "_method",
        "_moment",
        "_number",
        "_reader",
        "_trailers",
        "_unseen",
        "_waiters",
        "_watchers",
        "affinity",
        "path",
        "wait_for_ready",
        "waits_in",
    )

    def __init__(self, channel: Channel, method: Method, options: Options) -> None:
        self.path = method.path
        self.affinity = options.affinity
        self.wait_for_ready = options.wait_for_ready
        self.waits_in: dict[Assignable, None] | None = None
        self._channel = channel
        self._method = method
        self._compressed = options.compressed
        self._metadata = metadata_headers(options.metadata)
        if options.compressed:
            self._metadata.append(_ENCODING)
        self._moment: float | None = None if options.timeout is None else channel.alarms.now() + options.timeout
        self._alarm: Alarm | None = None
        self._connection: StreamConnection | None = None
        self._number = 0
        # Request bytes to resend with a retry; ``None`` once the call can no longer be retried.
        self._kept: list[bytes] | None = []
        self._kept_bytes = 0
        self._half_closed = False
        self._attempts = 1
        self._unseen = 0
        self._initial: Headers | None = None
        self._trailers: Headers = ()
        self._code: StatusCode | None = None
        self._details = ""
        self._is_cancelled = False
        self._reader: MessageReader | None = None
        # Waiters are resolved when the call ends, watchers on any change.
        self._waiters: list[asyncio.Future[None]] = []
        self._watchers: list[asyncio.Future[None]] = []
        self._consumer: asyncio.Task[None] | None = None
        self._callbacks: list[Callable[[Any], None]] = []

    # Interface for callers.

    def done(self) -> bool:
        """Return whether the call has ended."""
        return self._code is not None

    def cancelled(self) -> bool:
        """Return whether the call was cancelled on the client side."""
        return self._is_cancelled

    def cancel(self) -> bool:
        """Cancel the call. Return whether it was still active."""
        if self._code is not None:
            return False
        self._is_cancelled = True
        self._let_go(reset=True)
        self._finish(StatusCode.CANCELLED, "the caller cancelled the call")
        return True

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline; ``None`` without a deadline."""
        return None if self._moment is None else max(self._moment - self._channel.alarms.now(), 0.0)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call ``callback`` with the call once the call has ended."""
        if self._code is not None:
            callback(self)
        else:
            self._callbacks.append(callback)

    async def initial_metadata(self) -> Metadata:
        """Return the initial metadata of the response."""
        while self._initial is None and self._code is None:
            await self._changed()
        return metadata_in(self._initial or ())

    async def trailing_metadata(self) -> Metadata:
        """Return the metadata that came with the status."""
        await self._ended()
        return metadata_in(self._trailers)

    async def code(self) -> StatusCode:
        """Return the status code."""
        await self._ended()
        return self._code or StatusCode.UNKNOWN

    async def details(self) -> str:
        """Return the message of the status."""
        await self._ended()
        return self._details

    async def debug_error_string(self) -> str:
        """Return the message of the status; no further error text exists."""
        return await self.details()

    async def wait_for_connection(self) -> None:
        """Return once the call has a connection. Raises AioRpcError if the call ended without one."""
        while self._connection is None and self._code is None:
            await self._changed()
        if self._code not in (None, StatusCode.OK):
            raise self._error()

    # Interface for the channel and its subchannels.

    def begin(self) -> None:
        """Start the call."""
        self._channel.calls.add(self)
        if self._moment is not None:
            if self._moment <= self._channel.alarms.now():
                self._expire()
                return
            self._alarm = self._channel.alarms.at(self._moment, self._expire)
        if size_of(self._metadata) > _MOST_METADATA_BYTES:
            self._finish(StatusCode.RESOURCE_EXHAUSTED, "the metadata is too large to be sent")
            return
        self._channel.balancer.assign(self)

    def attach(self, connection: StreamConnection, headers: Sequence[Header]) -> None:
        """Start an attempt on ``connection``."""
        all_headers = [*headers]
        if self._moment is not None:
            all_headers.append(timeout_header(int(1000 * (self._moment - self._channel.alarms.now()))))
        all_headers += self._metadata
        kept = self._kept or ()
        body = kept[0] if len(kept) == 1 else b"".join(kept)
        try:
            self._number = connection.begin(self, all_headers, body, ends=self._half_closed)
        except EngineError:
            # The engine has run out of stream identifiers, or already knows that the connection has ended.
            connection.retire()
            self.attempt_failed(Failure(StatusCode.UNAVAILABLE, "the connection has ended", unseen=True))
            return
        self._connection = connection
        self._commit_if_large()
        if self._watchers:
            self._wake()

    def attempt_failed(self, failure: Failure) -> None:
        """Retry the call where that is allowed, and end it otherwise."""
        if self._code is not None:
            return
        if failure.unseen and self._may_repeat and self._unseen < _MOST_UNSEEN:
            self._unseen += 1
            self._repeat()
            return
        self._repeat_or_finish(failure.code, failure.details, ())

    # Notifications from the connection.

    def headers_received(self, headers: Headers) -> None:
        """Handle the headers of the response."""
        known = dict(headers)
        if known.get(b":status") != b"200" or not known.get(b"content-type", b"").startswith(b"application/grpc"):
            self._let_go(reset=True)
            self._finish(*status_of_http(known))
            return
        if self._channel.is_too_large(headers):
            self._refuse(StatusCode.RESOURCE_EXHAUSTED, "the answer's metadata exceeds the size limit")
            return
        self._initial = headers
        # From here on, the caller could notice a retry.
        self._kept = None
        self._reader = MessageReader(self._channel.settings.max_message_bytes, known.get(b"grpc-encoding", IDENTITY))
        if self._watchers:
            self._wake()

    def data_received(self, data: bytes) -> None:
        """Handle a part of the response body."""
        if self._reader is None:
            self._refuse(StatusCode.INTERNAL, "the answer has a body before its headers")
            return
        try:
            messages = self._reader.feed(data)
        except WireError as error:
            self._refuse(error.code, str(error))
            return
        self._take(messages, len(data))

    def trailers_received(self, headers: Headers) -> None:
        """Handle the status."""
        known = dict(headers)
        status = status_of(known)
        self._let_go(reset=not self._half_closed)
        if self._channel.is_too_large(headers):
            self._finish(StatusCode.RESOURCE_EXHAUSTED, "the answer's metadata exceeds the size limit")
        elif self._initial is None:
            if status is None:
                self._finish(*status_of_http(known))
            else:
                self._repeat_or_finish(*status, headers)
        elif status is None:
            self._finish(StatusCode.UNKNOWN, "the answer ended without a status")
        elif status[0] is StatusCode.OK:
            self._answered(status[1], headers)
        else:
            self._finish(*status, headers)

    def stream_failed(self, failure: Failure) -> None:
        """Handle the end of the attempt without trailers."""
        self._let_go(reset=False)
        if self._is_late():
            # The peer noticed the deadline before this side did.
            self._expire()
        elif self._initial is not None:
            self._finish(failure.code, failure.details)
        else:
            self.attempt_failed(failure)

    def room_made(self) -> None:
        """Resume waiting writers."""
        self._wake()

    # Overridden by the kinds of calls.

    def _take(self, messages: Sequence[bytes], size: int) -> None:
        """Handle the response messages completed by ``size`` bytes, and return these to the flow-control window."""
        raise NotImplementedError

    def _answered(self, details: str, trailers: Headers) -> None:
        """Handle the status OK."""
        self._finish(StatusCode.OK, details, trailers)

    # Internal: request.

    def _serialized(self, request: Any) -> bytes:
        serialize = self._method.serialize
        return framed(request if serialize is None else serialize(request), compressed=self._compressed)

    def _send(self, body: bytes, *, ends: bool) -> None:
        """Send the next part of the request, now or with the next attempt."""
        self._half_closed = ends
        if self._kept is not None and body:
            self._kept.append(body)
            self._kept_bytes += len(body)
        if self._connection is not None:
            self._connection.send(self._number, body, ends=ends)
            self._commit_if_large()

    def _is_clogged(self) -> bool:
        if self._code is not None:
            return False
        if self._connection is None:
            return self._kept_bytes > _GATE_BYTES
        return self._connection.is_full(self._number)

    def _commit_if_large(self) -> None:
        retries = self._channel.settings.retries
        most = _GATE_BYTES if retries is None else retries.most_kept_bytes
        # Keeping a request that is already complete costs nothing more.
        if self._kept_bytes > most and (retries is not None or not self._half_closed):
            self._kept = None

    # Internal: response.

    def _deserialized(self, message: bytes) -> Any:
        deserialize = self._method.deserialize
        if deserialize is None:
            return message
        try:
            return deserialize(message)
        except Exception as error:
            raise AioRpcError(StatusCode.INTERNAL, Metadata(), Metadata(), details="the answer is damaged") from error

    # Internal: attempts.

    @property
    def _may_repeat(self) -> bool:
        return self._kept is not None and self._initial is None

    def _repeat(self) -> None:
        self._number = 0
        self._connection = None
        self._reader = None
        self._channel.balancer.assign(self)

    def _repeat_or_finish(self, code: StatusCode, details: str, trailers: Headers) -> None:
        self._connection = None
        budget = self._channel.budget
        if budget is not None and code is not StatusCode.OK and self._may_repeat:
            pushback = next((value.decode("ascii", "replace") for name, value in trailers if name == _PUSHBACK), None)
            pause = budget.pause_before(self._attempts + 1, code, pushback, self.time_remaining())
            if pause is not None:
                self._attempts += 1
                # The deadline's alarm is suspended during the pause.
                self._pause(pause)
                return
        self._finish(code, details, trailers)

    def _pause(self, seconds: float) -> None:
        alarms = self._channel.alarms
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = alarms.after(seconds, self._go_on)

    def _go_on(self) -> None:
        self._alarm = None if self._moment is None else self._channel.alarms.at(self._moment, self._expire)
        self._repeat()

    def _is_late(self) -> bool:
        return self.time_remaining() == 0.0

    def _expire(self) -> None:
        self._let_go(reset=True)
        self._finish(StatusCode.DEADLINE_EXCEEDED, "the deadline of the call has passed")

    def _refuse(self, code: StatusCode, details: str) -> None:
        self._let_go(reset=True)
        self._finish(code, details)

    def _let_go(self, *, reset: bool) -> None:
        """Leave the queue, and detach the call from its connection."""
        if self.waits_in is not None:
            self.waits_in.pop(self, None)
            self.waits_in = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.forget(self._number, reset=reset)

    # Internal: end of the call.

    def _finish(self, code: StatusCode, details: str, trailers: Headers = ()) -> None:
        if self._code is not None:
            return
        self._code = code
        self._details = details
        self._trailers = trailers
        self._kept = None
        self._reader = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if code is StatusCode.OK and self._channel.budget is not None:
            self._channel.budget.returned()
        self._channel.ended(self)
        if self._consumer is not None:
            self._consumer.cancel()
        if self._watchers:
            self._wake()
        waiters, self._waiters = self._waiters, []
        _resolve(waiters)
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._notify(callback)

    def _notify(self, callback: Callable[[Any], None]) -> None:
        try:
            callback(self)
        except Exception as error:  # noqa: BLE001 - the loop reports it, and the connection's other calls continue
            self._channel.alarms.loop.call_exception_handler(
                {"message": "a callback of a call failed", "exception": error}
            )

    def _error(self) -> BaseException:
        """Return the exception to raise for a call that failed."""
        if self._is_cancelled:
            return asyncio.CancelledError()
        return AioRpcError(
            self._code or StatusCode.UNKNOWN,
            metadata_in(self._initial or ()),
            metadata_in(self._trailers),
            details=self._details,
            debug_error_string=self._details,
        )

    # Internal: waiting.

    def _wake(self) -> None:
        watchers, self._watchers = self._watchers, []
        _resolve(watchers)

    async def _changed(self) -> None:
        await self._wait_among(self._watchers)

    async def _ended(self) -> None:
        if self._code is None:
            await self._wait_among(self._waiters)

    async def _wait_among(self, others: list[asyncio.Future[None]]) -> None:
        waiter = self._channel.alarms.loop.create_future()
        others.append(waiter)
        try:
            await waiter
        finally:
            # Still in the list if only this wait was cancelled.
            if waiter in others:
                others.remove(waiter)


def _resolve(waiters: Iterable[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


def compresses(compression: grpc.Compression | None) -> bool:
    """Return whether messages are compressed. Raises ValueError if the compression is not supported."""
    if compression in (None, grpc.Compression.NoCompression):
        return False
    if compression is grpc.Compression.Gzip:
        return True
    raise ValueError("requests can only be compressed with gzip")
