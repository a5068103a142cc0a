"""The four kinds of calls, and the methods that make them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

import grpc
from grpc import StatusCode
from grpc.aio import EOF, AioRpcError

from grpc_http2.client.call import Call, Method, Options, compresses
from grpc_http2.client.stream import Headers
from grpc_http2.log import log
from grpc_http2.wire import Metadatum

if TYPE_CHECKING:
    from grpc_http2.client.channel import Channel


# What a reader has not taken yet; the server may send a window more.
_UNREAD_BYTES: Final = 64 << 10


class SingleAnswer(Call):
    """A call with one message as its answer, which is awaited."""

    __slots__ = ("_answer",)

    def __init__(self, channel: Channel, method: Method, options: Options) -> None:
        super().__init__(channel, method, options)
        self._answer: bytes | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        """Return the answer. Raises AioRpcError; a caller that is cancelled cancels the call."""
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
        """Return the answer of a call that has ended.

        Raises:
            AioRpcError: the call has another status than OK.
            asyncio.CancelledError: the call was cancelled here.
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
                self._refuse(StatusCode.INTERNAL, "the server gave more than one answer")
                return
            self._answer = message

    def _answered(self, details: str, trailers: Headers) -> None:
        if self._answer is None:
            self._finish(StatusCode.INTERNAL, "the server said OK, and gave no answer", trailers)
        else:
            self._finish(StatusCode.OK, details, trailers)


class AnswerStream(Call):
    """A call with any number of messages as its answer, which are read one by one."""

    __slots__ = ("_held", "_unread", "_unread_bytes")

    def __init__(self, channel: Channel, method: Method, options: Options) -> None:
        super().__init__(channel, method, options)
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        # Bytes that the server may send once the reader has gone on.
        self._held = 0

    def __aiter__(self) -> Self:
        """Return the messages."""
        return self

    async def __anext__(self) -> Any:
        """Return the next message. Raises AioRpcError where the call fails."""
        message = await self.read()
        if message is EOF:
            raise StopAsyncIteration
        return message

    async def read(self) -> Any:
        """Return the next message, ``EOF`` after the last. Raises AioRpcError where the call fails."""
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
        """End the call; return whether it had not ended. What was not read is not kept."""
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
            # The window of the connection is of all calls.
            self._connection.consumed(self._number, self._held)
            self._held = 0
        super()._let_go(reset=reset)


class SingleRequest(Call):
    """A call with one message as its request."""

    __slots__ = ()

    def ask(self, request: Any) -> Self:
        """Begin with the request."""
        self._send(self._serialized(request), ends=True)
        self.begin()
        return self


class RequestStream(Call):
    """A call with any number of messages as its request."""

    __slots__ = ()

    def open(self, requests: AsyncIterable[Any] | Iterable[Any] | None) -> Self:
        """Begin, and send ``requests`` if there are any."""
        self.begin()
        if requests is not None and self._code is None:
            self._consumer = self._channel.own(self._send_all(requests))
        return self

    async def write(self, request: Any) -> None:
        """Send a message, once those before are not piling up.

        Raises:
            AioRpcError: the call has failed.
            asyncio.InvalidStateError: it has ended, or this side of it has.
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
        """Say that there are no further messages."""
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
            # Whoever waits for the call knows.
            return
        except Exception:
            log.exception("the requests of a call cannot be made", path=self.path)
            self.cancel()


class UnaryUnaryCall(SingleRequest, SingleAnswer):
    """One request, one answer."""

    __slots__ = ()


class UnaryStreamCall(SingleRequest, AnswerStream):
    """One request, any number of answers."""

    __slots__ = ()


class StreamUnaryCall(RequestStream, SingleAnswer):
    """Any number of requests, one answer."""

    __slots__ = ()


class StreamStreamCall(RequestStream, AnswerStream):
    """Any number of requests, any number of answers."""

    __slots__ = ()


class MultiCallable:
    """A method as a stub has it: is called, and returns a call.

    Args:
        channel: makes the calls.
        method: the method.
        start: makes and begins a call of the method's kind.
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
        """Begin a call.

        Args:
            request: the message; an iterator of messages, or none of it, where the method takes many.
            timeout: seconds until the deadline.
            metadata: to be sent.
            credentials: must be none; a credential is metadata.
            wait_for_ready: whether to wait, until the deadline, where no server can be reached.
            compression: of the request.
            affinity: calls of the same affinity go to the same server as long as it can be used.

        Raises:
            ValueError: metadata, credentials or compression cannot be used.
        """
        if credentials is not None:
            raise ValueError("credentials of a call are not known here; send metadata")
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
    """Begin a call with one request and one answer."""
    return UnaryUnaryCall(channel, method, options).ask(request)


def start_unary_stream(channel: Channel, method: Method, options: Options, request: Any) -> Call:
    """Begin a call with one request and many answers."""
    return UnaryStreamCall(channel, method, options).ask(request)


def start_stream_unary(channel: Channel, method: Method, options: Options, request: Any) -> Call:
    """Begin a call with many requests and one answer."""
    return StreamUnaryCall(channel, method, options).open(request)


def start_stream_stream(channel: Channel, method: Method, options: Options, request: Any) -> Call:
    """Begin a call with many requests and many answers."""
    return StreamStreamCall(channel, method, options).open(request)
