"""The boundary around every servicer: request id, deadline, who calls, calls in flight, log line, error to status.

It wraps method handlers before a server sees them, so it is the same on every transport, and for calls of plain HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn, cast

import grpc
from google.protobuf.message import DecodeError
from grpc import StatusCode

from grpc_http2.wire import PUSHBACK_KEY
from serving.access.audit import record
from serving.access.identity import ANYBODY, NOBODY, OPEN, Asked, Right
from serving.call import REQUEST_ID_KEY, RETRY_AFTER_KEY, Call, CallNotes, current_call, enter_call, request_id_from
from serving.deadline import NEVER, Deadline
from serving.errors import (
    DeadlineExceeded,
    InvalidRequest,
    OutOfCapacity,
    PermissionDenied,
    ServingError,
    Unavailable,
    status_of,
)
from serving.spans import Span
from serving.transport.asgi.context import CallContext
from serving.transport.expiry import Expiry, TaskExpiry
from serving.transport.guards import Guards
from serving.transport.service import Handlers, Registry, Service

# What gRPC's retries (proposal A6) understand: a negative time to wait before the next attempt means never.
_NOT_AGAIN: Final = (PUSHBACK_KEY, "-1")
MOST_STREAMS: Final = 64
"""Streams that are served at the same time, beside the calls: they stay as long as their callers do."""
_REQUEST_ID_HEADER: Final = REQUEST_ID_KEY.encode()

Behaviour = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]
StreamBehaviour = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], AsyncIterator[Any]]


def _as_it_is(data: Any) -> Any:
    return data


class Boundary:
    """A :class:`Registry` that wraps handlers and passes them on to the server's own registry.

    Args:
        registry: the server that hosts the handlers.
        default_deadline: seconds given to calls that come without a deadline.
        guards: what is asked and told of every call.
    """

    def __init__(self, registry: Registry, *, default_deadline: float, guards: Guards) -> None:
        self._registry = registry
        self._default_deadline = default_deadline
        self._guards = guards
        self._admission = guards.admission
        self._log = guards.log
        self._rights: dict[str, Asked] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Event | None = None
        self._arrival = asyncio.Event()

    def host(self, service: Service) -> None:
        """Register the service behind this boundary."""
        self._rights.update({f"{service.name}/{method}": right for method, right in service.rights.items()})
        service.register(self)

    async def wait_until_quiet(self, seconds: float) -> None:
        """Return once no call is in flight and none has arrived for ``seconds``."""
        await self._admission.wait_until_idle()
        while await self._arrives_within(seconds):
            await self._admission.wait_until_idle()

    async def hold_new_calls(self, seconds: float) -> None:
        """Keep calls waiting that arrive from now on; return once none has arrived for ``seconds``."""
        self._closing = self._closing or asyncio.Event()
        while await self._arrives_within(seconds):
            pass

    def refuse_new_calls(self) -> None:
        """Answer UNAVAILABLE to calls that are kept waiting, and from now on to all."""
        self._closing = self._closing or asyncio.Event()
        self._closing.set()
        for stream in self._streams:
            stream.cancel()

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Ignore these: generated code gives the same handlers again as a table, which can be wrapped."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Handlers) -> None:
        """Wrap the service's handlers and register them with the server."""
        wrapped = {name: self._wrapped(f"{service_name}/{name}", handler) for name, handler in method_handlers.items()}
        self._registry.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, wrapped),))
        self._registry.add_registered_method_handlers(service_name, wrapped)

    def _wrapped(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        read, write = handler.request_deserializer, handler.response_serializer
        if handler.request_streaming or read is None or write is None:
            raise NotImplementedError(
                f"{method} takes a stream or bytes, and the boundary wraps requests of one message"
            )
        right = self._rights.get(method)
        # Bytes in, bytes out: a message that cannot be read is an error of the tree like any other.
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._guarded_stream(method, handler.unary_stream, right, read, write)
            )
        return grpc.unary_unary_rpc_method_handler(self.guarded(method, handler.unary_unary, right, read, write))

    def guarded(
        self,
        method: str,
        behaviour: Any,
        right: Asked | None,
        read: Callable[[Any], Any] = _as_it_is,
        write: Callable[[Any], Any] = _as_it_is,
    ) -> Behaviour:
        """Return ``behaviour`` behind this boundary: all of its errors end in ``abort`` of the context.

        Args:
            method: its name in log lines.
            behaviour: takes a request and a context, as methods of servicers do.
            right: what it asks of its callers; ``None`` lets nobody in where access is configured.
            read: makes the request of what the transport gives.
            write: makes what the transport takes of the response.
        """
        observer, tracer = self._guards.observer, self._guards.tracer
        gate = self._admission.gate(method)

        async def guarded(data: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            if observer is not None:
                observer.began(method)
            span = None if tracer is None else tracer.begin(method, context)
            code = StatusCode.CANCELLED
            call = self._call_of(context, span)
            enter_call(call)
            # Our mark on every answer: who reads a status with it knows that a service of ours gave it.
            context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
            try:
                self._arrival.set()
                if self._closing is not None:
                    await _refused_once_set(self._closing)
                call = self._identified(call, context, method, right)
                entered = gate.enter(call)
                # Where the transport is ours, it watches the call's deadline anyway.
                expiry: Expiry = context.watch if isinstance(context, CallContext) else TaskExpiry(call.deadline)
                try:
                    entered = entered or await gate.wait(call)
                    response = write(await behaviour(_message(read, data), context))
                    code = StatusCode.OK
                except asyncio.CancelledError as error:
                    if not expiry.forgiven():
                        self._log.ended(method, code, call, started)
                        raise
                    raise DeadlineExceeded("the deadline of the call has passed") from error
                finally:
                    expiry.close()
                    gate.leave(call, entered, code is StatusCode.OK)
                self._log.ended(method, code, call, started)
            except Exception as error:  # noqa: BLE001 - the one place where every error becomes a status
                code = status_of(error).code
                try:
                    await self._abort(error, context, call, method=method, started=started)
                finally:
                    del context  # see _abort
            finally:
                if observer is not None:
                    observer.ended(method, code, time.perf_counter() - started)
                if span is not None and tracer is not None:
                    tracer.end(span, code, call)
                call.notes.forget()
            return response

        return guarded

    def _guarded_stream(
        self,
        method: str,
        behaviour: Any,
        right: Asked | None,
        read: Callable[[Any], Any],
        write: Callable[[Any], Any],
    ) -> StreamBehaviour:
        """Return ``behaviour``, which answers with a stream, behind this boundary.

        A stream lasts as long as its caller wants: it has no deadline but the caller's own, takes no place of a call,
        and ends when the service does.
        """

        async def guarded(data: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            started = time.perf_counter()
            call = self._call_of(context, None)._replace(deadline=NEVER)
            enter_call(call)
            context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
            task = _current_task()
            try:
                self._identified(call, context, method, right)
                self._enter_stream(task)
                try:
                    async for response in behaviour(_message(read, data), context):
                        yield write(response)
                    self._log.ended(method, StatusCode.OK, call, started)
                except asyncio.CancelledError as error:
                    if not self._ends(task):
                        self._log.ended(method, StatusCode.CANCELLED, call, started)
                        raise
                    raise _ending() from error
                finally:
                    self._streams.discard(task)
            except Exception as error:  # noqa: BLE001 - as above
                try:
                    await self._abort(error, context, call, method=method, started=started)
                finally:
                    del context  # see _abort

        return guarded

    def _enter_stream(self, stream: asyncio.Task[Any]) -> None:
        if self._closing is not None:
            raise _ending()
        if len(self._streams) >= MOST_STREAMS:
            raise OutOfCapacity("the service has as many streams as it takes; end one, or try again later")
        self._streams.add(stream)

    def _ends(self, stream: asyncio.Task[Any]) -> bool:
        """Return whether the stream was cancelled because the service ends, and by nobody else too."""
        return self._closing is not None and not stream.uncancel()

    def _identified(self, call: Call, context: Any, method: str, right: Asked | None) -> Call:
        """Return the call with who makes it. Raises Unauthenticated, PermissionDenied."""
        access = self._guards.access
        identity = NOBODY if right is OPEN else access.identify(context)
        if identity is not call.identity:
            call = call._replace(identity=identity)
            enter_call(call)
        try:
            access.check_method(identity, right)
        except PermissionDenied as error:
            if right is Right.MANAGE or (isinstance(right, tuple) and Right.MANAGE in right):
                record(method, "", call, error.code)
            raise
        return call

    async def _abort(self, error: Exception, context: Any, call: Call, *, method: str, started: float) -> NoReturn:
        status = status_of(error)
        if not (isinstance(error, ServingError) and error.was_logged):
            self._log.failed(method, status, error, current_call(), started)
        if isinstance(error, OutOfCapacity):
            self._admission.refusals.count(error)
        if isinstance(error, ServingError) and (error.tried_enough or error.retry_after is not None):
            mark = (REQUEST_ID_KEY, call.request_id)
            told = _NOT_AGAIN if error.retry_after is None else (RETRY_AFTER_KEY, f"{error.retry_after:.3f}")
            context.set_trailing_metadata((mark, told))
        try:
            await context.abort(status.code, status.message)
        except BaseException as aborted:
            # grpcio keeps in the context what it ends the call with. Whose frames know the context, or the error of a
            # frame that does, would be in a circle with it: a service that refuses many would stand still again and
            # again while the garbage collector looks through what is left of them.
            aborted.__context__ = None
            raise
        finally:
            del context, error
        raise AssertionError("abort returns never")

    async def _arrives_within(self, seconds: float) -> bool:
        self._arrival.clear()
        try:
            async with asyncio.timeout(seconds):
                return await self._arrival.wait()
        except TimeoutError:
            return False

    def _call_of(self, context: grpc.aio.ServicerContext[Any, Any], span: Span | None) -> Call:
        offered = _offered_request_id(context)
        # None where the caller set no deadline, whatever the published types say.
        remaining = cast("float | None", context.time_remaining())
        deadline = Deadline.after(self._default_deadline if remaining is None else remaining)
        # Names of arguments would cost as much as the rest.
        return Call(request_id_from(offered), deadline, ANYBODY, span, CallNotes())


def _offered_request_id(context: grpc.aio.ServicerContext[Any, Any]) -> str | bytes | None:
    if isinstance(context, CallContext):
        return context.metadatum(_REQUEST_ID_HEADER)
    return next((value for key, value in context.invocation_metadata() or () if key == REQUEST_ID_KEY), None)


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a stream is served by a task")
    return task


async def _refused_once_set(closing: asyncio.Event) -> NoReturn:
    await closing.wait()
    raise _ending()


def _ending() -> Unavailable:
    return Unavailable("the service is ending; try again")


def _message(read: Callable[[Any], Any], data: Any) -> Any:
    try:
        return read(data)
    except DecodeError as error:
        raise InvalidRequest("the request is not a message of this call; its fields or its text are damaged") from error
