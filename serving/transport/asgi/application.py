"""An ASGI application that hosts grpcio servicers: calls of every kind, as grpcio's asyncio server serves them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc
import structlog
from grpc import StatusCode

from serving.errors import INTERNAL_MESSAGE
from serving.transport.asgi.context import CallContext, Send
from serving.transport.asgi.requests import StreamedRequest, unary_request
from serving.transport.asgi.watch import CallerLeft, CallWatch, Ended, Receive
from serving.transport.asgi.wire import (
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

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Application: TypeAlias = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]

_MAX_METADATA_BYTES: Final = 16 << 10
_HEADER_OVERHEAD: Final = 32
"""What HTTP/2 adds to the size of a header, by RFC 9113."""


@dataclass(frozen=True, slots=True)
class _CallHeaders:
    """What the transport itself reads of a call's headers."""

    seconds: float | None = None
    encoding: bytes = IDENTITY
    accepts_gzip: bool = False


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
        self._methods: dict[str, Handler] = {}
        self._generic: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Take handlers that look a method up by its name."""
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Handlers) -> None:
        """Take the methods of one service."""
        self._methods.update({f"/{service_name}/{name}": handler for name, handler in method_handlers.items()})

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        if not _is_grpc(scope):
            await (self._otherwise or _refuse)(scope, receive, send)
            return
        try:
            headers = _call_headers(scope["headers"])
        except WireError as error:
            await CallContext(scope, send, None, accepts_gzip=False).send_status(_trailers(error))
            return
        watch = CallWatch(headers.seconds)
        context = CallContext(scope, send, watch.deadline, accepts_gzip=headers.accepts_gzip)
        try:
            await self._ended(context, watch, self._served(scope["path"], headers, receive, context, watch))
        finally:
            watch.close()
            context.end()

    async def _ended(self, context: CallContext, watch: CallWatch, served: Awaitable[list[Header] | None]) -> None:
        """Send the status of the call, unless ``served`` has sent it, or nobody is there to read it."""
        try:
            trailers = await served
        except CallerLeft:
            return
        except WireError as error:
            trailers = _trailers(error)
        except grpc.aio.AbortError:
            trailers = _status(context)
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
            trailers = status_headers(StatusCode.INTERNAL, INTERNAL_MESSAGE, ())
        watch.close()
        if trailers is not None:
            await context.send_status(trailers)

    async def _served(
        self, path: str, headers: _CallHeaders, receive: Receive, context: CallContext, watch: CallWatch
    ) -> list[Header] | None:
        """Serve the call; return its trailers, or ``None`` where they have been sent with the answer."""
        handler = self._methods.get(path) or self._looked_up(path, context)
        reader = MessageReader(self._max_message_bytes, headers.encoding)
        if handler.request_streaming:
            request = StreamedRequest(receive, reader, handler.request_deserializer, watch)
            try:
                return await _answered(handler, request, request, context, watch)
            finally:
                request.close()
        if headers.seconds is None and not handler.response_streaming:
            watch.expire_after(self._unary_seconds)
        message: Any = await unary_request(receive, reader)
        if handler.request_deserializer is not None:
            message = _deserialized(handler.request_deserializer, message)
        watch.listen(receive)
        return await _answered(handler, message, None, context, watch)

    def _looked_up(self, path: str, context: CallContext) -> Handler:
        details = _CallDetails(path, context)
        for generic in self._generic:
            handler = generic.service(details)
            if handler is not None:
                return handler
        raise WireError(StatusCode.UNIMPLEMENTED, "Method not found!")


class _CallDetails(grpc.HandlerCallDetails):
    """What a generic handler is asked with."""

    def __init__(self, path: str, context: CallContext) -> None:
        self.method = path
        self.invocation_metadata = context.invocation_metadata()


async def _answered(
    handler: Handler, request: Any, stream: StreamedRequest | None, context: CallContext, watch: CallWatch
) -> list[Header] | None:
    behaviour = _behaviour(handler)
    write = handler.response_serializer or bytes
    context.stream(stream.read if stream else None, write if handler.response_streaming else None)
    if handler.response_streaming:
        responses = behaviour(request, context)
        if hasattr(responses, "__aiter__"):
            async for response in responses:
                await context.send_message(write(response))
        else:
            # A coroutine writes to the context.
            await responses
        return _status(context)
    response = await behaviour(request, context)
    # From here on the call succeeds, however late it is.
    watch.close()
    if context.status_code not in (None, StatusCode.OK):
        return _status(context)
    await context.send_answer(write(response), _status(context))
    return None


def _behaviour(handler: Handler) -> Any:
    if handler.request_streaming:
        return handler.stream_stream if handler.response_streaming else handler.stream_unary
    return handler.unary_stream if handler.response_streaming else handler.unary_unary


def _deserialized(deserialize: Callable[[bytes], Any], message: bytes) -> Any:
    try:
        return deserialize(message)
    except Exception as error:
        raise WireError(StatusCode.INTERNAL, "the request is not a message of this call") from error


def _is_grpc(scope: Mapping[str, Any]) -> bool:
    return scope["method"] == "POST" and any(
        name == b"content-type"
        and (value == b"application/grpc" or value.startswith((b"application/grpc+", b"application/grpc;")))
        for name, value in scope["headers"]
    )


def _call_headers(headers: Sequence[Header]) -> _CallHeaders:
    seconds, encoding, accepts_gzip, size = None, IDENTITY, False, 0
    for name, value in headers:
        size += len(name) + len(value) + _HEADER_OVERHEAD
        if name[:5] != b"grpc-":
            continue
        if name == b"grpc-timeout":
            seconds = seconds_of_timeout(value)
        elif name == b"grpc-accept-encoding":
            accepts_gzip = GZIP in value
        elif name == b"grpc-encoding":
            encoding = value
    if size > _MAX_METADATA_BYTES:
        raise WireError(
            StatusCode.RESOURCE_EXHAUSTED,
            f"the metadata are larger than the {_MAX_METADATA_BYTES} bytes that are taken",
        )
    if encoding not in (IDENTITY, GZIP):
        raise WireError(StatusCode.UNIMPLEMENTED, "messages are read plain or compressed with gzip")
    return _CallHeaders(seconds, encoding, accepts_gzip)


def _status(context: CallContext) -> list[Header]:
    return status_headers(context.status_code or StatusCode.OK, context.status_details, context.trailers)


def _trailers(error: WireError) -> list[Header]:
    return status_headers(error.code, str(error), ())


async def _refuse(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    del scope, receive
    body = b"this port speaks gRPC\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 415, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
