"""The boundary around every servicer: request id, deadline, bound on calls in flight, log line, error to status.

It wraps method handlers before a server sees them, so it is the same on every transport, and for calls of plain HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn, cast

import grpc
import structlog
from google.protobuf.message import DecodeError

from serving.call import REQUEST_ID_KEY, Call, enter_call, request_id_from
from serving.deadline import Deadline
from serving.errors import DeadlineExceeded, InvalidRequest, OutOfCapacity, ServingError, Status, Unavailable, status_of
from serving.transport.asgi.context import CallContext
from serving.transport.expiry import Expiry, TaskExpiry
from serving.transport.service import Handlers, Registry

log = structlog.get_logger()

# What gRPC's retries (proposal A6) understand: a negative time to wait before the next attempt means never.
_NOT_AGAIN: Final = ("grpc-retry-pushback-ms", "-1")
_REQUEST_ID_HEADER: Final = REQUEST_ID_KEY.encode()
# Asked first: composing a line that is not written costs more than much of the call.
_debugging = logging.getLogger()

Behaviour = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


def _as_it_is(data: Any) -> Any:
    return data


class Boundary:
    """A :class:`Registry` that wraps handlers and passes them on to the server's own registry.

    Args:
        registry: the server that hosts the handlers.
        default_deadline: seconds given to calls that come without a deadline.
        max_in_flight: calls served at the same time; those beyond it are refused with RESOURCE_EXHAUSTED.
    """

    def __init__(self, registry: Registry, *, default_deadline: float, max_in_flight: int) -> None:
        self._registry = registry
        self._default_deadline = default_deadline
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._closing: asyncio.Event | None = None
        self._arrival = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def wait_until_quiet(self, seconds: float) -> None:
        """Return once no call is in flight and none has arrived for ``seconds``."""
        await self._idle.wait()
        while await self._arrives_within(seconds):
            await self._idle.wait()

    async def hold_new_calls(self, seconds: float) -> None:
        """Keep calls waiting that arrive from now on; return once none has arrived for ``seconds``."""
        self._closing = self._closing or asyncio.Event()
        while await self._arrives_within(seconds):
            pass

    def refuse_new_calls(self) -> None:
        """Answer UNAVAILABLE to calls that are kept waiting, and from now on to all."""
        self._closing = self._closing or asyncio.Event()
        self._closing.set()

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Ignore these: generated code gives the same handlers again as a table, which can be wrapped."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Handlers) -> None:
        """Wrap the service's handlers and register them with the server."""
        wrapped = {name: self._wrapped(f"{service_name}/{name}", handler) for name, handler in method_handlers.items()}
        self._registry.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, wrapped),))
        self._registry.add_registered_method_handlers(service_name, wrapped)

    def _wrapped(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        if handler.unary_unary is None or handler.request_deserializer is None or handler.response_serializer is None:
            raise NotImplementedError(f"{method} streams or takes bytes, and the boundary wraps unary messages only")
        # Bytes in, bytes out: a message that cannot be read is an error of the tree like any other.
        return grpc.unary_unary_rpc_method_handler(
            self.guarded(method, handler.unary_unary, handler.request_deserializer, handler.response_serializer)
        )

    def guarded(
        self,
        method: str,
        behaviour: Any,
        read: Callable[[Any], Any] = _as_it_is,
        write: Callable[[Any], Any] = _as_it_is,
    ) -> Behaviour:
        """Return ``behaviour`` behind this boundary: all of its errors end in ``abort`` of the context.

        Args:
            method: its name in log lines.
            behaviour: takes a request and a context, as methods of servicers do.
            read: makes the request of what the transport gives.
            write: makes what the transport takes of the response.
        """

        async def guarded(data: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            call = self._call_of(context)
            enter_call(call)
            # Our mark on every answer: who reads a status with it knows that a service of ours gave it.
            context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
            try:
                self._arrival.set()
                if self._closing is not None:
                    await _refused_once_set(self._closing)
                self._enter(call)
                # Where the transport is ours, it watches the call's deadline anyway.
                expiry: Expiry = context.watch if isinstance(context, CallContext) else TaskExpiry(call.deadline)
                try:
                    response = write(await behaviour(_message(read, data), context))
                except asyncio.CancelledError as error:
                    if not expiry.forgiven():
                        raise
                    raise DeadlineExceeded("the deadline of the call has passed") from error
                finally:
                    expiry.close()
                    self._leave()
            except Exception as error:  # noqa: BLE001 - the one place where every error becomes a status
                status = status_of(error)
                _report(method, status, error, time.perf_counter() - started)
                if isinstance(error, ServingError) and error.tried_enough:
                    context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id), _NOT_AGAIN))
                await context.abort(status.code, status.message)
            if _debugging.isEnabledFor(logging.DEBUG):
                log.debug("call", method=method, code="OK", seconds=round(time.perf_counter() - started, 6))
            return response

        return guarded

    def _enter(self, call: Call) -> None:
        if self._in_flight >= self._max_in_flight:
            raise OutOfCapacity("the service has as many calls in flight as it takes; try again shortly")
        call.deadline.check()
        self._in_flight += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    async def _arrives_within(self, seconds: float) -> bool:
        self._arrival.clear()
        try:
            async with asyncio.timeout(seconds):
                return await self._arrival.wait()
        except TimeoutError:
            return False

    def _call_of(self, context: grpc.aio.ServicerContext[Any, Any]) -> Call:
        offered = _offered_request_id(context)
        # None where the caller set no deadline, whatever the published types say.
        remaining = cast("float | None", context.time_remaining())
        return Call(
            request_id_from(offered), Deadline.after(self._default_deadline if remaining is None else remaining)
        )


def _offered_request_id(context: grpc.aio.ServicerContext[Any, Any]) -> str | bytes | None:
    if isinstance(context, CallContext):
        return context.metadatum(_REQUEST_ID_HEADER)
    return next((value for key, value in context.invocation_metadata() or () if key == REQUEST_ID_KEY), None)


async def _refused_once_set(closing: asyncio.Event) -> NoReturn:
    await closing.wait()
    raise Unavailable("the service is ending; try again")


def _message(read: Callable[[Any], Any], data: Any) -> Any:
    try:
        return read(data)
    except DecodeError as error:
        raise InvalidRequest("the request is not a message of this call; its fields or its text are damaged") from error


def _report(method: str, status: Status, error: Exception, seconds: float) -> None:
    fields = {"method": method, "code": status.code.name, "seconds": round(seconds, 6)}
    if isinstance(error, ServingError):
        log.info("call", message=status.message, cause=repr(error.__cause__) if error.__cause__ else None, **fields)
    else:
        log.error("call", exc_info=error, **fields)
