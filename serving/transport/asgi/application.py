"""An ASGI application that hosts grpcio servicers: calls of every kind, as grpcio's asyncio server serves them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import grpc
import structlog
from grpc import StatusCode

from grpc_http2.alarms import Alarms, alarms_of
from grpc_http2.wire import (
    DEFLATE,
    GZIP,
    IDENTITY,
    Header,
    MessageReader,
    WireError,
    seconds_of_timeout,
    status_headers,
)
from serving.errors import INTERNAL_MESSAGE
from serving.transport.asgi.context import CallContext, Send
from serving.transport.asgi.requests import StreamedRequest, deserialized, unary_request, whole_message
from serving.transport.asgi.watch import CallerLeft, CallWatch, Ended, Event, Receive, as_future
from serving.transport.service import Handlers

log = structlog.get_logger()

Application: TypeAlias = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]

_GRPC: Final = b"application/grpc"
_MAX_METADATA_BYTES: Final = 16 << 10
_HEADER_OVERHEAD: Final = 32
"""What HTTP/2 adds to the size of a header, by RFC 9113."""
_INTERNAL: Final = status_headers(StatusCode.INTERNAL, INTERNAL_MESSAGE, ())


class _CallHeaders(NamedTuple):
    """What the transport itself reads of a call's headers."""

    seconds: float | None
    encoding: bytes
    accepts_gzip: bool


class _Method:
    """A handler, its parts at hand."""

    __slots__ = ("behaviour", "read", "request_streaming", "response_streaming", "unary", "write")

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any]) -> None:
        self.request_streaming = handler.request_streaming
        self.response_streaming = handler.response_streaming
        self.behaviour: Any = _behaviour(handler)
        self.read = handler.request_deserializer
        self.write = handler.response_serializer or bytes
        self.unary = not (handler.request_streaming or handler.response_streaming)


class GrpcApplication:
    """Takes servicers as a server does, and serves them to ASGI requests.

    Args:
        max_message_bytes: the largest message that is taken.
        unary_seconds: given to calls that come without a deadline and stream nothing.
    """

    otherwise: Application
    """Takes requests that are no gRPC; they are refused with HTTP 415 where nothing else is set."""

    def __init__(self, *, max_message_bytes: int, unary_seconds: float) -> None:
        self.otherwise = _refuse
        self._max_message_bytes = max_message_bytes
        self._unary_seconds = unary_seconds
        self._methods: dict[str, _Method] = {}
        self._generic: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Take handlers that look a method up by its name."""
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Handlers) -> None:
        """Take the methods of one service."""
        self._methods.update({f"/{service_name}/{name}": _Method(handler) for name, handler in method_handlers.items()})

    @functools.cached_property
    def _alarms(self) -> Alarms:
        """The alarms of the loop that calls are served on: asking for the loop costs a system call."""
        return alarms_of(asyncio.get_running_loop())

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        read = dict(scope["headers"])
        kind = read.get(b"content-type", b"")
        if kind[:16] != _GRPC or kind[16:17] not in (b"", b"+", b";") or scope["method"] != "POST":
            await self.otherwise(scope, receive, send)
            return
        watch = CallWatch(self._alarms)
        context = CallContext(scope, send, watch)
        try:
            headers = _call_headers(scope["headers"], read)
            context.accepts_gzip = headers.accepts_gzip
            if headers.seconds is not None:
                context.set_deadline(headers.seconds)
            method = self._methods.get(scope["path"]) or self._looked_up(context)
            serve = self._unary if method.unary else self._streamed
            trailers = await serve(method, headers, receive, context)
        except CallerLeft:
            return
        except WireError as error:
            trailers = status_headers(error.code, str(error), ())
        except grpc.aio.AbortError:
            trailers = _status_of_abort(context)
        except asyncio.CancelledError:
            if watch.reason is None:
                raise
            trailers = _status_of_ended(context)
        except Exception:
            log.exception("servicer failed", path=context.path)
            trailers = _INTERNAL
        finally:
            watch.close()
            context.end()
        if trailers is not None:
            with contextlib.suppress(CallerLeft):
                await context.send_status(trailers)

    async def _unary(
        self, method: _Method, headers: _CallHeaders, receive: Receive, context: CallContext
    ) -> list[Header] | None:
        """Serve a call of one message each way; return its trailers, or ``None`` where the answer has taken them."""
        seconds = self._unary_seconds if headers.seconds is None else headers.seconds
        first = as_future(receive())
        # Nearly always the request is there at once.
        message = whole_message(first.result(), self._max_message_bytes) if first.done() else None
        if message is None:
            context.watch.expire_after(seconds)
            message = await self._gathered(first, headers, receive)
            context.watch.listen(receive)
        else:
            context.watch.start(receive, seconds)
        return await _one_response(method, deserialized(method.read, message), context)

    async def _streamed(
        self, method: _Method, headers: _CallHeaders, receive: Receive, context: CallContext
    ) -> list[Header] | None:
        """Serve any other call; return its trailers, or ``None`` where the answer has taken them."""
        watch = context.watch
        if headers.seconds is not None:
            watch.expire_after(headers.seconds)
        if not method.request_streaming:
            message = await self._gathered(as_future(receive()), headers, receive)
            watch.listen(receive)
            return await _answered(method, deserialized(method.read, message), None, context)
        reader = MessageReader(self._max_message_bytes, headers.encoding)
        request = StreamedRequest(receive, reader, method.read, watch)
        try:
            return await _answered(method, request, request, context)
        finally:
            request.close()

    async def _gathered(self, first: asyncio.Future[Event], headers: _CallHeaders, receive: Receive) -> bytes:
        return await unary_request(first, receive, MessageReader(self._max_message_bytes, headers.encoding))

    def _looked_up(self, context: CallContext) -> _Method:
        details = _CallDetails(context)
        for generic in self._generic:
            handler = generic.service(details)
            if handler is not None:
                return _Method(handler)
        raise WireError(StatusCode.UNIMPLEMENTED, "Method not found!")


class _CallDetails(grpc.HandlerCallDetails):
    """What a generic handler is asked with."""

    def __init__(self, context: CallContext) -> None:
        self.method = context.path
        self.invocation_metadata = context.invocation_metadata()


async def _answered(
    method: _Method, request: Any, stream: StreamedRequest | None, context: CallContext
) -> list[Header] | None:
    context.stream(stream.read if stream else None, method.write if method.response_streaming else None)
    if method.response_streaming:
        responses = method.behaviour(request, context)
        if hasattr(responses, "__aiter__"):
            async for response in responses:
                await context.send_message(method.write(response))
        else:
            # A coroutine writes to the context.
            await responses
        return _status(context)
    return await _one_response(method, request, context)


async def _one_response(method: _Method, request: Any, context: CallContext) -> list[Header] | None:
    response = await method.behaviour(request, context)
    # From here on the call succeeds, however late it is.
    context.watch.close()
    if context.status_code not in (None, StatusCode.OK):
        return _status(context)
    await context.send_answer(method.write(response), _status(context))
    return None


def _behaviour(handler: grpc.RpcMethodHandler[Any, Any]) -> Any:
    if handler.request_streaming:
        return handler.stream_stream if handler.response_streaming else handler.stream_unary
    return handler.unary_stream if handler.response_streaming else handler.unary_unary


def _call_headers(pairs: Sequence[Header], headers: Mapping[bytes, bytes]) -> _CallHeaders:
    """Return what the transport reads. Raises WireError."""
    size = sum(map(len, itertools.chain.from_iterable(pairs))) + _HEADER_OVERHEAD * len(pairs)
    if size > _MAX_METADATA_BYTES:
        raise WireError(
            StatusCode.RESOURCE_EXHAUSTED,
            f"the metadata are larger than the {_MAX_METADATA_BYTES} bytes that are taken",
        )
    timeout = headers.get(b"grpc-timeout")
    seconds = None if timeout is None else seconds_of_timeout(timeout)
    encoding = headers.get(b"grpc-encoding", IDENTITY)
    if encoding not in (IDENTITY, DEFLATE, GZIP):
        raise WireError(StatusCode.UNIMPLEMENTED, "messages are read plain, or compressed with gzip or deflate")
    return _CallHeaders(seconds, encoding, GZIP in headers.get(b"grpc-accept-encoding", b""))


def _status(context: CallContext) -> list[Header]:
    return status_headers(context.status_code or StatusCode.OK, context.status_details, context.trailers)


def _status_of_ended(context: CallContext) -> list[Header] | None:
    """Return the trailers of a call that its watch has ended; ``None`` where nobody is left to read them."""
    context.watch.forgive()
    context.was_cancelled = True
    if context.watch.reason is Ended.CALLER_LEFT:
        return None
    return status_headers(StatusCode.DEADLINE_EXCEEDED, "the deadline of the call has passed", ())


def _status_of_abort(context: CallContext) -> list[Header]:
    try:
        return _status(context)
    except ValueError:
        log.exception("servicer set metadata that cannot be sent", path=context.path)
        return _INTERNAL


async def _refuse(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    del scope, receive
    body = b"this port speaks gRPC\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 415, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
