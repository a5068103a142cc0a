"""An ASGI application that hosts grpcio servicers: calls of every kind, as grpcio's asyncio server serves them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import grpc
import structlog
from grpc import StatusCode

from serving.errors import INTERNAL_MESSAGE
from serving.transport.asgi.context import CallContext, Send
from serving.transport.asgi.requests import StreamedRequest, deserialized, unary_request, whole_message
from serving.transport.asgi.watch import CallerLeft, CallWatch, Ended, Receive, as_future
from serving.transport.asgi.wire import (
    DEFLATE,
    GZIP,
    IDENTITY,
    Header,
    MessageReader,
    WireError,
    seconds_of_timeout,
    status_headers,
)
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

    __slots__ = ("behaviour", "keeps_deadline", "read", "request_streaming", "response_streaming", "write")

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any]) -> None:
        self.request_streaming = handler.request_streaming
        self.response_streaming = handler.response_streaming
        self.behaviour: Any = _behaviour(handler)
        self.read = handler.request_deserializer
        self.write = handler.response_serializer or bytes
        self.keeps_deadline: bool = getattr(self.behaviour, "keeps_deadline", False)
        """Whether the handler itself ends at the call's deadline, so that the transport need not see to it."""


class GrpcApplication:
    """Takes servicers as a server does, and serves them to ASGI requests.

    Args:
        max_message_bytes: the largest message that is taken.
        unary_seconds: given to calls that come without a deadline and stream nothing.
        otherwise: takes requests that are no gRPC; without it they are refused with HTTP 415.
    """

    def __init__(self, *, max_message_bytes: int, unary_seconds: float, otherwise: Application | None = None) -> None:
        self._max_message_bytes = max_message_bytes
        self._unary_seconds = unary_seconds
        self._otherwise = otherwise
        self._methods: dict[str, _Method] = {}
        self._generic: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Take handlers that look a method up by its name."""
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Handlers) -> None:
        """Take the methods of one service."""
        self._methods.update({f"/{service_name}/{name}": _Method(handler) for name, handler in method_handlers.items()})

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        context = CallContext(scope, send)
        watch = CallWatch()
        try:
            headers = _call_headers(scope)
            if headers is None:
                await (self._otherwise or _refuse)(scope, receive, send)
                return
            trailers = await self._served(headers, receive, context, watch)
        except CallerLeft:
            return
        except WireError as error:
            trailers = status_headers(error.code, str(error), ())
        except grpc.aio.AbortError:
            trailers = _status_of_abort(context)
        except asyncio.CancelledError:
            if watch.reason is None:
                raise
            watch.forgive()
            context.was_cancelled = True
            if watch.reason is Ended.CALLER_LEFT:
                return
            trailers = status_headers(StatusCode.DEADLINE_EXCEEDED, "the deadline of the call has passed", ())
        except Exception:
            log.exception("servicer failed", path=context.path)
            trailers = _INTERNAL
        finally:
            watch.close()
            context.end()
        if trailers is not None:
            with contextlib.suppress(CallerLeft):
                await context.send_status(trailers)

    async def _served(
        self, headers: _CallHeaders, receive: Receive, context: CallContext, watch: CallWatch
    ) -> list[Header] | None:
        """Serve the call; return its trailers, or ``None`` where they have been sent with the answer."""
        method = self._methods.get(context.path) or self._looked_up(context)
        context.accepts_gzip = headers.accepts_gzip
        if headers.seconds is not None:
            context.set_deadline(headers.seconds)
        if method.request_streaming:
            if headers.seconds is not None:
                watch.expire_after(headers.seconds)
            reader = MessageReader(self._max_message_bytes, headers.encoding)
            request = StreamedRequest(receive, reader, method.read, watch)
            try:
                return await _answered(method, request, request, context, watch)
            finally:
                request.close()
        message = await self._unary_message(method, headers, receive, watch)
        watch.listen(receive)
        return await _answered(method, message, None, context, watch)

    async def _unary_message(self, method: _Method, headers: _CallHeaders, receive: Receive, watch: CallWatch) -> Any:
        first = as_future(receive())
        data = whole_message(first.result(), self._max_message_bytes) if first.done() else None
        # Nearly always the request is there at once, and its handler sees to the deadline: then no timer is needed.
        if data is None or not method.keeps_deadline:
            seconds = headers.seconds
            if seconds is None and not method.response_streaming:
                seconds = self._unary_seconds
            if seconds is not None:
                watch.expire_after(seconds)
        if data is None:
            data = await unary_request(first, receive, MessageReader(self._max_message_bytes, headers.encoding))
        return deserialized(method.read, data)

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
    method: _Method, request: Any, stream: StreamedRequest | None, context: CallContext, watch: CallWatch
) -> list[Header] | None:
    if method.request_streaming or method.response_streaming:
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
    response = await method.behaviour(request, context)
    # From here on the call succeeds, however late it is.
    watch.close()
    if context.status_code not in (None, StatusCode.OK):
        return _status(context)
    await context.send_answer(method.write(response), _status(context))
    return None


def _behaviour(handler: grpc.RpcMethodHandler[Any, Any]) -> Any:
    if handler.request_streaming:
        return handler.stream_stream if handler.response_streaming else handler.stream_unary
    return handler.unary_stream if handler.response_streaming else handler.unary_unary


def _call_headers(scope: Mapping[str, Any]) -> _CallHeaders | None:
    """Return what the transport reads; ``None`` where the request is no gRPC. Raises WireError."""
    seconds, encoding, accepts_gzip, is_grpc, size = None, IDENTITY, False, False, 0
    for name, value in scope["headers"]:
        size += len(name) + len(value) + _HEADER_OVERHEAD
        if name == b"content-type":
            is_grpc = value[:16] == _GRPC and value[16:17] in (b"", b"+", b";")
        elif name[:5] == b"grpc-":
            if name == b"grpc-timeout":
                seconds = seconds_of_timeout(value)
            elif name == b"grpc-accept-encoding":
                accepts_gzip = GZIP in value
            elif name == b"grpc-encoding":
                encoding = value
    if not is_grpc or scope["method"] != "POST":
        return None
    if size > _MAX_METADATA_BYTES:
        raise WireError(
            StatusCode.RESOURCE_EXHAUSTED,
            f"the metadata are larger than the {_MAX_METADATA_BYTES} bytes that are taken",
        )
    if encoding not in (IDENTITY, DEFLATE, GZIP):
        raise WireError(StatusCode.UNIMPLEMENTED, "messages are read plain, or compressed with gzip or deflate")
    return _CallHeaders(seconds, encoding, accepts_gzip)


def _status(context: CallContext) -> list[Header]:
    return status_headers(context.status_code or StatusCode.OK, context.status_details, context.trailers)


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
