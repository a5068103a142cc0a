"""A method behind the boundary, and one call of it, from its arrival to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeAlias

from google.protobuf.message import DecodeError
from grpc import StatusCode

from grpc_http2.wire import PUSHBACK_KEY
from intent_serving_client.metadata import REQUEST_ID_KEY, RETRY_AFTER_KEY
from serving.call.call import Call, CallNotes, enter_call, request_id_from
from serving.call.deadline import Deadline
from serving.call.identity import Identity
from serving.call.spans import Span
from serving.domain.errors import InvalidRequest, OutOfCapacity, ServingError, deadline_passed, status_of
from serving.telemetry.call_log import CallLog
from serving.transport.admission import Admission, Gate
from serving.transport.exchange import Ended, Exchange, Metadata, Presented

# In gRPC's retries (proposal A6), a negative time to wait before the next attempt means never.
_NEVER_RETRY: Final = (PUSHBACK_KEY, "-1")
_REQUEST_ID_HEADER: Final = REQUEST_ID_KEY.encode()

EndObserver: TypeAlias = "Callable[[ServedCall, StatusCode], None]"
"""Callback that is notified of a call that has ended."""


@dataclass(slots=True, eq=False)
class GuardedMethod:
    """A method behind the boundary, with everything that each of its calls needs, assembled once."""

    name: str
    """Name of the method in log lines: ``package.Service/Method``, or a verb and a path."""
    handler: Callable[..., Any]
    """A coroutine function of the request and its :class:`~serving.call.call.Call`, or a plain function of the request
    and its :class:`ServedCall`, which answers now or later."""
    is_coroutine: bool
    read: Callable[[Any], Any]
    """Parses the request from the transport's data. Raises InvalidRequest."""
    write: Callable[[Any], Any]
    """Converts the response into the transport's data."""
    gate: Gate
    admission: Admission
    default_deadline: float
    """Time limit of calls without a deadline, in seconds."""
    log: CallLog
    find_out: Sequence[Callable[[ServedCall, Presented], None]]
    """Functions that examine each call before it is admitted, and raise ServingError for callers that are not allowed;
    empty if nothing is configured."""
    answer_observers: Sequence[EndObserver]
    """Callbacks that are notified of each call that was answered."""
    end_observers: Sequence[EndObserver]
    """Callbacks that are notified of each call that ended in another way."""
    anybody: Identity
    """Identity of the caller until it is established, or if it never is."""
    start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    """Starts the task of a call; the boundary owns the task and ends it on close."""

    def __call__(self, exchange: Exchange, data: Any) -> None:
        """Serve a call. Returns at once."""
        ServedCall(self, exchange).serve(data)


class ServedCall(Call, CallNotes):
    """One call, which its handler ends with :meth:`respond`, :meth:`send` or :meth:`fail`, now or later.

    One object is created for each call; attributes that most calls do not need are defaults of the class.

    Args:
        method: method that was called.
        exchange: the call on its transport.
    """

    span: Span | None = None
    on_leave: Callable[[], object] | None = None
    """Called if the call ends before its answer, which no caller needs any more."""
    ended = False
    """Whether the call has its answer or its status, or its caller has disconnected or cancelled."""
    _entered = 0.0
    _task: asyncio.Task[None] | None = None

    def __init__(self, method: GuardedMethod, exchange: Exchange) -> None:
        self._method = method
        self._exchange = exchange
        self.started = started = monotonic()
        """Arrival of the call, in seconds of ``time.monotonic()``."""
        deadline = exchange.deadline
        if deadline is None:
            # The transport watches this deadline from here on.
            deadline = exchange.deadline = started + method.default_deadline
        self.deadline = Deadline(deadline)
        self.request_id = request_id_from(exchange.metadatum(REQUEST_ID_KEY))
        self.identity: Identity = method.anybody

    @property
    def notes(self) -> CallNotes:
        """The call itself, which holds its own notes."""
        return self

    # Used by handlers.

    def respond(self, response: Any) -> None:
        """End the call with its response. Does nothing if the call has ended."""
        try:
            data = self._method.write(response)
        except Exception as error:  # noqa: BLE001 - a fault of the service becomes a status like any other
            self.fail(error)
        else:
            self.send(data)

    def send(self, data: Any) -> None:
        """End the call with its response in the transport's form. Does nothing if the call has ended."""
        if self.ended:
            return
        method = self._method
        self.ended = True
        if self._entered:
            method.gate.leave(self, self._entered, True)
        for observe in method.answer_observers:
            observe(self, StatusCode.OK)
        # Request ids contain only characters that headers may contain.
        self._exchange.answer(data, ((_REQUEST_ID_HEADER, self.request_id.encode()),))
        self.on_leave = None
        if self._task is not None:
            self._task = None
            self.forget()

    def fail(self, error: Exception) -> None:
        """End the call with the status of ``error``. Does nothing if the call has ended."""
        if self.ended:
            return
        method = self._method
        status = status_of(error)
        self._end(status.code)
        if not (isinstance(error, ServingError) and error.was_logged):
            method.log.failed(method.name, status, error, self, self.started)
        if isinstance(error, OutOfCapacity):
            method.admission.refusals.count(error)
        self._exchange.fail(status.code, status.message, metadata_of_failure(self, error))
        self.forget()

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine that returns the response or raises. If the call ends, the coroutine is cancelled."""
        task = self._task = self._method.start(self._run(work))
        # A call that ends before its task's first step leaves a coroutine that nothing has awaited.
        task.add_done_callback(lambda _: work.close())

    # Used by the boundary.

    def serve(self, data: Any) -> None:
        """Admit the call, now or when its turn comes, and pass the request to the handler. Raises nothing."""
        method = self._method
        try:
            for find_out in method.find_out:
                find_out(self, self._exchange)
            self._entered = method.gate.enter(self)
            if self._entered:
                self._hand_over(data)
            else:
                self._task = method.start(self._wait(data))
        except Exception as error:  # noqa: BLE001 - the one place where every error becomes a status
            self.fail(error)
        if not self.ended:
            self._exchange.on_end = self._on_end

    # Internal.

    def _hand_over(self, data: Any) -> None:
        method = self._method
        request = message_of(method.read, data)
        if method.is_coroutine:
            self.run(method.handler(request, self))
        else:
            method.handler(request, self)

    async def _wait(self, data: Any) -> None:
        enter_call(self)
        try:
            self._entered = await self._method.gate.wait(self)
            self._task = None
            if self.ended:
                # The call was admitted and ended in the same iteration of the event loop.
                self._leave_gate(answered=False)
            else:
                self._hand_over(data)
        except Exception as error:  # noqa: BLE001 - as above
            self.fail(error)

    async def _run(self, work: Awaitable[Any]) -> None:
        enter_call(self)
        try:
            response = await work
        except Exception as error:  # noqa: BLE001 - as above
            self.fail(error)
        else:
            self.respond(response)

    def _on_end(self, why: Ended) -> None:
        if self.ended:
            return
        if why is Ended.DEADLINE:
            self.fail(deadline_passed())
        else:
            self._end(StatusCode.CANCELLED)
            self._method.log.ended(self._method.name, StatusCode.CANCELLED, self, self.started)
            self.forget()

    def _end(self, code: StatusCode) -> None:
        """End the work that is under way for the call, which has no answer."""
        self.ended = True
        self._leave_gate(answered=False)
        for observe in self._method.end_observers:
            observe(self, code)
        on_leave, self.on_leave = self.on_leave, None
        task, self._task = self._task, None
        if on_leave is not None:
            on_leave()
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def _leave_gate(self, *, answered: bool) -> None:
        entered, self._entered = self._entered, 0.0
        if entered:
            self._method.gate.leave(self, entered, answered)


def message_of(read: Callable[[Any], Any], data: Any) -> Any:
    """Return the request that ``read`` parses from ``data``. Raises InvalidRequest if the request is damaged."""
    try:
        return read(data)
    except DecodeError as error:
        raise InvalidRequest(
            "the request is not a valid message of this method; its fields or its text are damaged"
        ) from error


def metadata_of_failure(call: Call, error: Exception) -> Metadata:
    """Return the metadata of a status: the request id, which marks it as ours to other services, and when to retry."""
    mark = (REQUEST_ID_KEY, call.request_id)
    if isinstance(error, ServingError):
        when = () if error.retry_after is None else ((RETRY_AFTER_KEY, f"{error.retry_after:.3f}"),)
        return (mark, *when, *((_NEVER_RETRY,) if error.tried_enough else ()))
    return (mark,)
