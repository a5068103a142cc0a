"""The four kinds of calls, and the callables that start them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

import grpc
from grpc import StatusCode
from grpc.aio import EOF, AioRpcError

from grpc_http2.client.calls.call import Call, Method, Options, compresses
from grpc_http2.client.calls.stream import Headers
from grpc_http2.log import log
from grpc_http2.wire import Metadatum

if TYPE_CHECKING:
    from grpc_http2.client.channel import Channel


# Unread bytes above which the window is not replenished; the server may send a window more.
_UNREAD_BYTES: Final = 64 << 10


class SingleAnswer(Call):
    """Call with one response message, which is awaited."""

    __slots__ = ("_answer",)

    def __init__(self, channel: Channel, method: Method, options: Options) -> None:
        super().__init__(channel, method, options)
        self._answer: bytes | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        """Return the response. Raises AioRpcError. Cancelling the awaiting task cancels the call."""
        if self._code is None:
            waiter = self._channel.alarms.loop.create_future()
            self._waiters.append(waiter)
            try:
                yield from waiter
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self.result()

    def result(self) -> Any:
        """Return the response of a call that has ended.

        Raises:
            AioRpcError: the call has a status other than OK.
            asyncio.CancelledError: the call was cancelled on the client side.
            asyncio.InvalidStateError: the call has not ended.
        """
        if self._code is None:
            raise asyncio.InvalidStateError("the call has not ended")
        if self._code is not StatusCode.OK or self._answer is None:
            raise self._error()
        return self._deserialized(self._answer)

    def _take(self, messages: Sequence[bytes], size: int) -> None:
        if self._connection is not None:
            self._connection.consumed(self._number, size)
        for message in messages:
            if self._answer is not None:
                self._refuse(StatusCode.INTERNAL, "the server returned more than one answer")
                return
            self._answer = message

    def _answered(self, details: str, trailers: Headers) -> None:
        if self._answer is None:
            self._finish(StatusCode.INTERNAL, "the server returned OK without an answer", trailers)
        else:
            self._finish(StatusCode.OK, details, trailers)


class AnswerStream(Call):
    """Call with any number of response messages, which are read one by one."""

    __slots__ = ("_held", "_unread", "_unread_bytes")

    def __init__(self, channel: Channel, method: Method, options: Options) -> None:
        super().__init__(channel, method, options)
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        # Bytes to return to the flow-control window once the reader has caught up.
        self._held = 0

    def __aiter__(self) -> Self:
        """Return the call as an iterator over its messages."""
        return self

    async def __anext__(self) -> Any:
        """Return the next message. Raises AioRpcError if the call fails."""
        message = await self.read()
        if message is EOF:
            raise StopAsyncIteration
        return message

    async def read(self) -> Any:
        """Return the next message, ``EOF`` after the last. Raises AioRpcError if the call fails."""
        while not self._unread:
            if self._code is StatusCode.OK:
                return EOF
            if self._code is not None:
                raise self._error()
            try:
                await self._changed()
            except asyncio.CancelledError:
                self.cancel()
                raise
        message = self._unread.popleft()
        self._unread_bytes -= len(message)
        self._give_back()
        return self._deserialized(message)

    def cancel(self) -> bool:
        """Cancel the call and discard unread messages. Return whether the call was still active."""
        cancelled = super().cancel()
        if cancelled:
            self._unread.clear()
        return cancelled

    def _take(self, messages: Sequence[bytes], size: int) -> None:
        self._held += size
        if messages:
            self._unread.extend(messages)
            self._unread_bytes += sum(map(len, messages))
            self._wake()
        self._give_back()

    def _give_back(self) -> None:
        if self._held and self._connection is not None and self._unread_bytes <= _UNREAD_BYTES:
            self._connection.consumed(self._number, self._held)
            self._held = 0

    def _let_go(self, *, reset: bool) -> None:
        if self._held and self._connection is not None:
            # All calls share the window of the connection.
            self._connection.consumed(self._number, self._held)
            self._held = 0
        super()._let_go(reset=reset)


class SingleRequest(Call):
    """Call with one request message."""

    __slots__ = ()

    def ask(self, request: Any) -> Self:
        """Send the request and start the call."""
        self._send(self._serialized(request), ends=True)
        self.begin()
        return self


class RequestStream(Call):
    """Call with any number of request messages."""

    __slots__ = ()

    def open(self, requests: AsyncIterable[Any] | Iterable[Any] | None) -> Self:
        """Start the call, and send ``requests`` if given."""
        self.begin()
        if requests is not None and self._code is None:
            self._consumer = self._channel.own(self._send_all(requests))
        return self

    async def write(self, request: Any) -> None:
        """Send a message, and wait while too much of the request is queued.

        Raises:
            AioRpcError: the call has failed.
            asyncio.InvalidStateError: the call, or this side of the call, has ended.
        """
        self._check_open()
        self._send(self._serialized(request), ends=False)
        try:
            while self._is_clogged():
                await self._changed()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._code not in (None, StatusCode.OK):
            raise self._error()

    async def done_writing(self) -> None:
        """Half-close the call: there are no further messages."""
        if self._code is None and not self._half_closed:
            self._send(b"", ends=True)

    def _check_open(self) -> None:
        if self._code not in (None, StatusCode.OK):
            raise self._error()
        if self._code is not None:
            raise asyncio.InvalidStateError("the call has ended")
        if self._half_closed:
            raise asyncio.InvalidStateError("this side of the call has ended")

    async def _send_all(self, requests: AsyncIterable[Any] | Iterable[Any]) -> None:
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    await self.write(request)
            else:
                for request in requests:
                    await self.write(request)
            await self.done_writing()
        except (AioRpcError, asyncio.InvalidStateError):
            # Awaiting the call reports the failure.
            return
        except Exception:
            log.exception("the request iterator of a call failed", path=self.path)
            self.cancel()


class UnaryUnaryCall(SingleRequest, SingleAnswer):
    """Call with one request and one response."""

    __slots__ = ()


class UnaryStreamCall(SingleRequest, AnswerStream):
    """Call with one request and any number of responses."""

    __slots__ = ()


class StreamUnaryCall(RequestStream, SingleAnswer):
    """Call with any number of requests and one response."""

    __slots__ = ()


class StreamStreamCall(RequestStream, AnswerStream):
    """Call with any number of requests and any number of responses."""

    __slots__ = ()


class MultiCallable:
    """Callable of a stub's method: starts a call and returns it.

    Args:
        channel: channel that makes the calls.
        method: method to call.
        start: function that creates and starts a call of the method's kind.
    """

    __slots__ = ("_channel", "_method", "_start")

    def __init__(
        self, channel: Channel, method: Method, start: Callable[[Channel, Method, Options, Any], Call]
    ) -> None:
        self._channel = channel
        self._method = method
        self._start = start

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Iterable[Metadatum] | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        affinity: str | None = None,
    ) -> Any:
        """Start a call.

        Args:
            request: the message; an iterator of messages, or ``None``, where the method takes many.
            timeout: seconds until the deadline.
            metadata: metadata to send.
            credentials: must be ``None``; a credential is sent as metadata.
            wait_for_ready: whether to wait, until the deadline, while no server can be reached.
            compression: compression of the request.
            affinity: calls of the same affinity go to the same server as long as that server is usable.

        Raises:
            ValueError: metadata, credentials or compression cannot be used.
        """
        if credentials is not None:
            raise ValueError("credentials of a call are not supported; send metadata")
        channel = self._channel
        own = channel.metadata
        options = Options(
            timeout,
            (*(metadata or ()), *own) if own else metadata or (),
            bool(wait_for_ready),
            compresses(compression or channel.compression),
            affinity,
        )
        channel.open()
        return self._start(channel, self._method, options, request)


def start_unary_unary(channel: Channel, method: Method, options: Options, request: Any) -> Call:
    """Start a call with one request and one response."""
    return UnaryUnaryCall(channel, method, options).ask(request)


def start_unary_stream(channel: Channel, method: Method, options: Options, request: Any) -> Call:
    """Start a call with one request and many responses."""
    return UnaryStreamCall(channel, method, options).ask(request)


def start_stream_unary(channel: Channel, method: Method, options: Options, request: Any) -> Call:
    """Start a call with many requests and one response."""
    return StreamUnaryCall(channel, method, options).open(request)


def start_stream_stream(channel: Channel, method: Method, options: Options, request: Any) -> Call:
    """Start a call with many requests and many responses."""
    return StreamStreamCall(channel, method, options).open(request)
