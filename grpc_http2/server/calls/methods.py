"""Methods, served by a handler that is called at once, or by a servicer's coroutine in a task."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol, TypeAlias

import grpc
from grpc import StatusCode

from grpc_http2.log import log
from grpc_http2.server.calls.call import FAULT_MESSAGE, CallHandler, Ended, ServerCall
from grpc_http2.server.calls.context import CallContext
from grpc_http2.server.calls.request_stream import RequestStream, deserialized
from grpc_http2.wire import WireError, metadata_headers

RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Method(Protocol):
    """Serves the calls of one path."""

    @property
    def streams_requests(self) -> bool:
        """Whether calls are served before their request is complete."""

    def open(self, call: ServerCall) -> None:
        """Prepare a call that streams its requests, before any of them arrives."""

    def serve(self, call: ServerCall) -> None:
        """Serve the call. The method returns at once."""


class HandlerMethod:
    """A :class:`Method` with one message each way whose handler is a plain function, without task and context.

    Args:
        handler: called with every call once its message is complete.
    """

    streams_requests: Final = False

    def __init__(self, handler: CallHandler) -> None:
        self._handler = handler

    def serve(self, call: ServerCall) -> None:
        """Pass the call to the handler."""
        self._handler(call, call.message)

    def open(self, call: ServerCall) -> None:
        """Do nothing; never called, since nothing streams."""


class ServicerMethod:
    """A :class:`Method` of a grpcio servicer: a coroutine or an asynchronous generator, run as a task.

    Args:
        handler: handler as registered by generated code.
        tasks: tasks of all active calls; the owner of the set ends them.
    """

    def __init__(self, handler: RpcHandler, tasks: set[asyncio.Task[None]]) -> None:
        self.streams_requests = handler.request_streaming
        self._streams_responses = handler.response_streaming
        self._behaviour: Any = _behaviour(handler)
        self._read = handler.request_deserializer
        self._write = handler.response_serializer or bytes
        self._tasks = tasks

    def open(self, call: ServerCall) -> None:
        """Give the call a stream of request messages."""
        call.stream = RequestStream(call, self._read)

    def serve(self, call: ServerCall) -> None:
        """Start the task of the call."""
        context = CallContext(call, call.stream, self._write if self._streams_responses else None)
        task = asyncio.get_running_loop().create_task(self._run(call, context))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def end(why: Ended) -> None:
            del why
            context.was_cancelled = True
            task.cancel()

        call.on_end = end

    async def _run(self, call: ServerCall, context: CallContext) -> None:
        try:
            request = deserialized(self._read, call.message) if call.stream is None else call.stream
            await self._answer(request, call, context)
        except WireError as error:
            call.fail(error.code, str(error))
        except grpc.aio.AbortError:
            _end_with_status(call, context)
        except asyncio.CancelledError:
            if not call.ended:
                # The only remaining cause is the shutdown of the service.
                call.fail(StatusCode.UNAVAILABLE, "the service is shutting down; try again")
                raise
        except Exception:
            log.exception("servicer failed", path=call.path)
            call.fail(StatusCode.INTERNAL, FAULT_MESSAGE)
        finally:
            context.end()

    async def _answer(self, request: Any, call: ServerCall, context: CallContext) -> None:
        if self._streams_responses:
            responses = self._behaviour(request, context)
            if hasattr(responses, "__aiter__"):
                async for response in responses:
                    await context.send_message(self._write(response))
            else:
                # A coroutine writes to the context.
                await responses
            _end_with_status(call, context)
            return
        response = await self._behaviour(request, context)
        code = context.status_code or StatusCode.OK
        if code is not StatusCode.OK:
            _end_with_status(call, context)
            return
        call.sends_gzip = call.sends_gzip and not context.next_is_plain
        try:
            trailers = metadata_headers(context.trailers)
        except ValueError as error:
            log.error("metadata cannot be sent", path=call.path, exc_info=error)
            call.fail(StatusCode.INTERNAL, FAULT_MESSAGE)
            return
        # Only errors carry a status message.
        call.answer(self._write(response), trailers)


def _end_with_status(call: ServerCall, context: CallContext) -> None:
    call.fail(context.status_code or StatusCode.OK, context.status_details, context.trailers)


def _behaviour(handler: RpcHandler) -> Any:
    if handler.request_streaming:
        return handler.stream_stream if handler.response_streaming else handler.stream_unary
    return handler.unary_stream if handler.response_streaming else handler.unary_unary
