"""A call as its transport represents it: what the caller sent, and the way to respond. The same on every transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from grpc import StatusCode

from grpc_http2.alarms import Alarm, alarms_of
from grpc_http2.server.calls.call import Ended
from serving.call.presented import Presented

__all__ = ["CERTIFICATE_KEY", "Awaited", "ContextExchange", "Ended", "Exchange", "Metadata", "Presented", "RawMetadata"]

Outcome = TypeVar("Outcome")

Metadata: TypeAlias = Sequence[tuple[str, str]]

RawMetadata: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Metadata as sent over HTTP/2: names in lower case, values of printable ASCII."""

CERTIFICATE_KEY: Final = "x509_pem_cert"
"""Key of the caller's certificate, in PEM, in the ``auth_context()`` of a grpcio context."""


class Exchange(Presented, Protocol):
    """One call: what the caller sent, and the way to respond. :meth:`answer` or :meth:`fail` ends the call, once."""

    deadline: float | None
    """Deadline of the caller, in seconds of ``time.monotonic()``; ``None`` if the caller set none. The transport
    watches the deadline that is set here."""
    on_end: Callable[[Ended], object] | None
    """Callback that is notified when the caller disconnects or cancels, and when the deadline passes."""

    def answer(self, response: Any, metadata: RawMetadata = ()) -> None:
        """Send the response with ``metadata``. Does nothing if the caller has disconnected or cancelled."""

    def fail(self, code: StatusCode, message: str, metadata: Metadata = ()) -> None:
        """Send a status instead. Does nothing if the caller has disconnected or cancelled."""


class Awaited(Generic[Outcome]):
    """The part of an :class:`Exchange` that a coroutine of a transport waits for: one outcome, a deadline, an end.

    Args:
        deadline: deadline of the caller, in seconds of ``time.monotonic()``; ``None`` if the caller set none.
    """

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self.on_end: Callable[[Ended], object] | None = None
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    @property
    def has_outcome(self) -> bool:
        """Whether the call has its outcome."""
        return self._outcome.done()

    def give(self, outcome: Outcome) -> None:
        """Set the outcome for the waiting coroutine. Does nothing if an outcome is already set."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    async def outcome(self) -> Outcome:
        """Return the outcome once it is set, watching the deadline. A cancellation means that the caller has left."""
        alarm: Alarm | None = None
        if self.deadline is not None and not self._outcome.done():
            loop = asyncio.get_running_loop()
            alarm = alarms_of(loop).after(self.deadline - time.monotonic(), self.end, Ended.DEADLINE)
        try:
            return await self._outcome
        except asyncio.CancelledError:
            self.end(Ended.CALLER_LEFT)
            raise
        finally:
            self.on_end = None
            if alarm is not None:
                alarm.cancel()

    def end(self, why: Ended) -> None:
        """Notify the code that serves the call of its end."""
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(why)


class ContextExchange:
    """Data that a caller sent with a call, read from the context that grpcio passes to a servicer."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def metadatum(self, key: str) -> str | None:
        """Return the value of one metadata key; ``None`` if it is missing."""
        pairs: Iterable[tuple[str, Any]] = self._context.invocation_metadata() or ()
        return next((str(value) for name, value in pairs if name == key), None)

    def certificate(self) -> bytes | None:
        """Return the caller's certificate in PEM; ``None`` if it is missing."""
        presented = self._context.auth_context().get(CERTIFICATE_KEY)
        return bytes(presented[0]) if presented else None

    def caller_deadline(self) -> float | None:
        """Return the deadline of the caller, in seconds of ``time.monotonic()``; ``None`` if the caller set none."""
        remaining = self._context.time_remaining()
        return None if remaining is None else time.monotonic() + remaining
