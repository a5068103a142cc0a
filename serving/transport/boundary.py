"""The boundary around every servicer: request id, deadline, identity, calls in flight, log line, error to status.

The boundary is between a transport and the servicers, so it is the same on every transport, and for plain HTTP calls.
Features that are off (access, traces, metrics) are left out when a method is registered, and cost its calls nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import grpc
from grpc import StatusCode

from intent_serving_client.metadata import REQUEST_ID_KEY
from serving.access.audit import record
from serving.call.call import Call, CallNotes, enter_call, request_id_from
from serving.call.deadline import NEVER
from serving.call.identity import ANYBODY, NOBODY, OPEN, Requirement, Right
from serving.call.tasks import Tasks
from serving.domain.errors import OutOfCapacity, PermissionDenied, ServingError, service_ends, status_of
from serving.transport.exchange import ContextExchange, Presented
from serving.transport.guards import Access, Guards, OpenAccess
from serving.transport.served_call import EndObserver, GuardedMethod, ServedCall, message_of, metadata_of_failure
from serving.transport.service import Handlers, Registry, Service

MOST_STREAMS: Final = 64
"""Maximum number of concurrent streams, counted separately from calls: a stream lasts as long as its caller stays."""


class Transport(Registry, Protocol):
    """Host of the methods."""

    def add_guarded_methods(self, service_name: str, methods: Mapping[str, GuardedMethod]) -> None:
        """Register methods with one message each way; each is called with an exchange and the request's bytes."""


def _as_it_is(data: Any) -> Any:
    return data


class Boundary:
    """A :class:`Registry` that guards handlers and passes them on to the transport.

    Args:
        transport: hosts the handlers.
        default_deadline: time limit of calls without a deadline, in seconds.
        guards: guards that apply to every call.
    """

    def __init__(self, transport: Transport, *, default_deadline: float, guards: Guards) -> None:
        self._transport = transport
        self._default_deadline = default_deadline
        self._guards = guards
        self._admission = guards.admission
        self._log = guards.log
        self._rights: dict[str, Requirement] = {}
        self._tasks = Tasks()
        self._streams: set[asyncio.Task[Any]] = set()
        self._closing = False

    def host(self, service: Service) -> None:
        """Register the service behind this boundary."""
        self._rights.update({f"{service.name}/{method}": right for method, right in service.rights.items()})
        service.register(self)

    def end_streams(self) -> None:
        """End the streams and refuse new ones: streams last as long as callers want, and would delay the shutdown."""
        self._closing = True
        for stream in self._streams:
            stream.cancel()

    async def close(self) -> None:
        """End the remaining calls."""
        await self._tasks.close()

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Ignore these handlers: generated code registers the same ones again as a table."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Handlers) -> None:
        """Guard the service's handlers and register them with the transport."""
        guarded: dict[str, GuardedMethod] = {}
        streams: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for name, handler in method_handlers.items():
            method = f"{service_name}/{name}"
            read, write = handler.request_deserializer, handler.response_serializer
            if handler.request_streaming or read is None or write is None:
                raise NotImplementedError(
                    f"{method} takes a stream or bytes, but the boundary only guards requests of one message"
                )
            right = self._rights.get(method)
            unary: Callable[..., Any] | None = handler.unary_unary
            if unary is None:
                behaviour = self._guarded_stream(method, handler.unary_stream, right, read, write)
                streams[name] = grpc.unary_stream_rpc_method_handler(behaviour)
            else:
                guarded[name] = self.guarded(method, unary, right, read, write)
        self._transport.add_guarded_methods(service_name, guarded)
        if streams:
            self._transport.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, streams),))
            self._transport.add_registered_method_handlers(service_name, streams)

    def guarded(
        self,
        method: str,
        handler: Callable[..., Any],
        right: Requirement | None,
        read: Callable[[Any], Any] = _as_it_is,
        write: Callable[[Any], Any] = _as_it_is,
    ) -> GuardedMethod:
        """Return ``handler`` behind this boundary: all of its errors become statuses.

        Args:
            method: name of the method in log lines.
            handler: as :attr:`GuardedMethod.handler`.
            right: right that callers need; ``None`` admits no caller if access is configured.
            read: parses the request from the transport's data.
            write: converts the response into the transport's data.
        """
        return GuardedMethod(
            name=method,
            handler=handler,
            is_coroutine=inspect.iscoroutinefunction(handler),
            read=read,
            write=write,
            gate=self._admission.gate(method),
            admission=self._admission,
            default_deadline=self._default_deadline,
            log=self._log,
            find_out=self._found_out(method, right),
            answer_observers=self._observers_of(method, answered=True),
            end_observers=self._observers_of(method, answered=False),
            anybody=NOBODY if right is OPEN else ANYBODY,
            start=self._tasks.start,
        )

    def _found_out(self, method: str, right: Requirement | None) -> Sequence[Callable[[ServedCall, Presented], None]]:
        """Return the functions that examine each call of ``method`` before it is admitted."""
        found: list[Callable[[ServedCall, Presented], None]] = []
        tracer, access = self._guards.tracer, self._guards.access
        if tracer is not None:

            def begin_span(call: ServedCall, presented: Presented) -> None:
                call.span = tracer.begin(method, presented)

            found.append(begin_span)
        # A subclass may refuse callers.
        if type(access) is not OpenAccess:
            found.append(_identifier(access, method, right))
        return found

    def _observers_of(self, method: str, *, answered: bool) -> Sequence[EndObserver]:
        """Return the callbacks that are notified of each call of ``method`` that has ended."""
        observers: list[EndObserver] = []
        observer, tracer, log = self._guards.observer, self._guards.tracer, self._log
        if observer is not None:
            observers.append(lambda call, code: observer.ended(method, code, time.monotonic() - call.started))
        if tracer is not None:

            def end_span(call: ServedCall, code: StatusCode) -> None:
                if call.span is not None:
                    tracer.end(call.span, code, call)

            observers.append(end_span)
        if answered and log.logs_all:
            observers.append(lambda call, code: log.ended(method, code, call, call.started))
        return observers

    def _guarded_stream(
        self,
        method: str,
        behaviour: Any,
        right: Requirement | None,
        read: Callable[[Any], Any],
        write: Callable[[Any], Any],
    ) -> Callable[[Any, Any], AsyncIterator[Any]]:
        """Return ``behaviour``, which answers with a stream, behind this boundary.

        A stream lasts as long as its caller wants: it has no deadline but the caller's own, takes no call slot, and
        ends when the service does.
        """
        identify = _identifier(self._guards.access, method, right)

        async def guarded(data: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            started = time.monotonic()
            presented = ContextExchange(context)
            call = Call(request_id_from(presented.metadatum(REQUEST_ID_KEY)), NEVER, ANYBODY, None, CallNotes())
            context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
            task = _current_task()
            try:
                identify(call, presented)
                enter_call(call)
                self._enter_stream(task)
                try:
                    async for response in behaviour(message_of(read, data), call):
                        yield write(response)
                    self._log.ended(method, StatusCode.OK, call, started)
                except asyncio.CancelledError as error:
                    if not self._ends(task):
                        self._log.ended(method, StatusCode.CANCELLED, call, started)
                        raise
                    raise service_ends() from error
                finally:
                    self._streams.discard(task)
            except Exception as error:  # noqa: BLE001 - every error becomes a status
                status = status_of(error)
                if not (isinstance(error, ServingError) and error.was_logged):
                    self._log.failed(method, status, error, call, started)
                context.set_trailing_metadata(metadata_of_failure(call, error))
                await context.abort(status.code, status.message)

        return guarded

    def _enter_stream(self, stream: asyncio.Task[Any]) -> None:
        if self._closing:
            raise service_ends()
        if len(self._streams) >= MOST_STREAMS:
            raise OutOfCapacity("the service has reached its limit of streams; end one, or try again later")
        self._streams.add(stream)

    def _ends(self, stream: asyncio.Task[Any]) -> bool:
        """Return whether the stream was cancelled only because the service is shutting down."""
        return self._closing and not stream.uncancel()


def _identifier(access: Access, method: str, right: Requirement | None) -> Callable[[Call, Presented], None]:
    """Return a function that sets the identity of a call of ``method``; it raises Unauthenticated, PermissionDenied."""
    is_managing = right is Right.MANAGE or (isinstance(right, tuple) and Right.MANAGE in right)

    def identify(call: Call, presented: Presented) -> None:
        call.identity = identity = NOBODY if right is OPEN else access.identify(presented)
        try:
            access.check_method(identity, right)
        except PermissionDenied as error:
            if is_managing:
                record(method, "", call, error.code)
            raise

    return identify


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a stream must be served by a task")
    return task
