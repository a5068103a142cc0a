"""One call behind the boundary, from its arrival to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from grpc import StatusCode

from serving.call import REQUEST_ID_KEY, RETRY_AFTER_KEY, Call, CallNotes, enter_call, request_id_from
from serving.deadline import Deadline
from serving.errors import DeadlineExceeded, OutOfCapacity, ServingError, status_of
from serving.transport.exchange import Ended, Exchange, Metadata

if TYPE_CHECKING:
    from serving.transport.boundary import GuardedMethod

# What gRPC's retries (proposal A6) understand: a negative time to wait before the next attempt means never.
_REQUEST_ID_HEADER: Final = REQUEST_ID_KEY.encode()
_NEVER_RETRY: Final = ("grpc-retry-pushback-ms", "-1")


class ServedCall:
    """One call. Its handler ends it with :meth:`answer` or :meth:`fail`, now or later, or has a coroutine do so.

    Args:
        method: what was called.
        exchange: the call on its transport.
    """

    __slots__ = ("_ended", "_entered", "_exchange", "_method", "_started", "_task", "call", "on_leave")

    def __init__(self, method: GuardedMethod, exchange: Exchange) -> None:
        self._method = method
        self._exchange = exchange
        self._started = time.perf_counter()
        span = None if method.tracer is None else method.tracer.begin(method.name, exchange)
        deadline = exchange.deadline
        if deadline is None:
            # The transport watches it from here on.
            deadline = exchange.deadline = time.monotonic() + method.default_deadline
        request_id = request_id_from(exchange.metadatum(REQUEST_ID_KEY))
        self.call = Call(request_id, Deadline(deadline), method.anybody, span, CallNotes())
        """What the rooms on the call's way know of it."""
        self.on_leave: Callable[[], object] | None = None
        """Called where the call ends before its answer: nobody needs that any more."""
        self._entered = 0.0
        self._task: asyncio.Task[None] | None = None
        self._ended = False

    # What handlers use.

    def answer(self, response: Any) -> None:
        """End the call with its response. Does nothing where the call has ended."""
        if self._ended:
            return
        try:
            data = self._method.write(response)
        except Exception as error:  # noqa: BLE001 - a fault of ours becomes a status like any other
            self.fail(error)
            return
        self._end(StatusCode.OK)
        method, call = self._method, self.call
        if method.log_ended is not None:
            method.log_ended(method.name, StatusCode.OK, call, self._started)
        # Request ids are of letters that headers have.
        self._exchange.answer(data, ((_REQUEST_ID_HEADER, call.request_id.encode()),))
        call.notes.forget()

    def fail(self, error: Exception) -> None:
        """End the call with the status of ``error``. Does nothing where the call has ended."""
        if self._ended:
            return
        method, call = self._method, self.call
        status = status_of(error)
        self._end(status.code)
        if not (isinstance(error, ServingError) and error.was_logged):
            method.log.failed(method.name, status, error, call, self._started)
        if isinstance(error, OutOfCapacity):
            method.admission.refusals.count(error)
        self._exchange.fail(status.code, status.message, metadata_of_failure(call, error))
        call.notes.forget()

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have a coroutine return the response, or raise why there is none. It is cancelled where the call ends."""
        self._task = self._method.start(self._run(work))

    # What the boundary uses.

    def enter(self, data: Any) -> None:
        """Serve the call, at once or when it is its turn."""
        method = self._method
        try:
            if method.identify is not None:
                self.call = method.identify(self._exchange, self.call)
            self._entered = method.gate.enter(self.call)
        except Exception as error:  # noqa: BLE001 - the one place where every error becomes a status
            self.fail(error)
            return
        if self._entered:
            self.serve(data)
        else:
            self._task = method.start(self._wait_and_serve(data))
        if not self._ended:
            self._exchange.on_end = self._on_end

    def serve(self, data: Any) -> None:
        """Hand the request to the handler."""
        method = self._method
        try:
            request = method.read(data)
            if method.is_coroutine:
                self.run(method.handler(request, self.call))
            else:
                method.handler(request, self)
        except Exception as error:  # noqa: BLE001 - as above
            self.fail(error)

    # Inside.

    async def _wait_and_serve(self, data: Any) -> None:
        enter_call(self.call)
        try:
            self._entered = await self._method.gate.wait(self.call)
        except Exception as error:  # noqa: BLE001 - as above
            self.fail(error)
            return
        self._task = None
        if self._ended:
            # It was let in and ended in the same turn.
            self._leave_gate(StatusCode.CANCELLED)
        else:
            self.serve(data)

    async def _run(self, work: Awaitable[Any]) -> None:
        enter_call(self.call)
        try:
            response = await work
        except Exception as error:  # noqa: BLE001 - as above
            self.fail(error)
        else:
            self.answer(response)

    def _on_end(self, why: Ended) -> None:
        if self._ended:
            return
        if why is Ended.DEADLINE:
            self.fail(DeadlineExceeded("the deadline of the call has passed"))
        else:
            self._end(StatusCode.CANCELLED)
            self._method.log.ended(self._method.name, StatusCode.CANCELLED, self.call, self._started)
            self.call.notes.forget()

    def _end(self, code: StatusCode) -> None:
        """Give everything back that the call held."""
        self._ended = True
        method = self._method
        self._leave_gate(code)
        if method.observer is not None:
            method.observer.ended(method.name, code, time.perf_counter() - self._started)
        if self.call.span is not None and method.tracer is not None:
            method.tracer.end(self.call.span, code, self.call)
        on_leave, self.on_leave = self.on_leave, None
        task, self._task = self._task, None
        if code is not StatusCode.OK:
            if on_leave is not None:
                on_leave()
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    def _leave_gate(self, code: StatusCode) -> None:
        if self._entered:
            self._method.gate.leave(self.call, self._entered, code is StatusCode.OK)
            self._entered = 0.0


def metadata_of_failure(call: Call, error: BaseException) -> Metadata:
    """Return the metadata of a status: our mark, by which other services know it for one of ours, and when to retry."""
    mark = (REQUEST_ID_KEY, call.request_id)
    if isinstance(error, ServingError):
        if error.retry_after is not None:
            return (mark, (RETRY_AFTER_KEY, f"{error.retry_after:.3f}"))
        if error.tried_enough:
            return (mark, _NEVER_RETRY)
    return (mark,)
