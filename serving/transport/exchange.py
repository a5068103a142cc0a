"""A call as its transport has it: what the caller sent along, and the way back. The same on every transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from grpc import StatusCode

from grpc_http2.alarms import Alarm, alarms_of
from grpc_http2.server.call import Ended
from serving.call.presented import Presented

__all__ = ["CERTIFICATE_KEY", "Awaited", "ContextExchange", "Ended", "Exchange", "Metadata", "Presented", "RawMetadata"]

Outcome = TypeVar("Outcome")

Metadata: TypeAlias = Sequence[tuple[str, str]]

RawMetadata: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Metadata as HTTP/2 sends them: names in lower case, values of printable ASCII."""

CERTIFICATE_KEY: Final = "x509_pem_cert"
"""Where the ``auth_context()`` of a grpcio context has the caller's certificate, in PEM."""


class Exchange(Presented, Protocol):
    """One call: what came, and the way back. It is ended once, by :meth:`answer` or :meth:`fail`."""

    deadline: float | None
    """When the caller waits no more, in seconds of ``time.monotonic()``; ``None``: the caller did not say. The
    transport watches what is set here."""
    on_end: Callable[[Ended], object] | None
    """Told when the caller leaves, and when the deadline passes."""

    def answer(self, response: Any, metadata: RawMetadata = ()) -> None:
        """Give the response, and metadata with it. Does nothing where the caller has left."""

    def fail(self, code: StatusCode, message: str, metadata: Metadata = ()) -> None:
        """Give a status instead. Does nothing where the caller has left."""


class Awaited(Generic[Outcome]):
    """The part of an :class:`Exchange` that a coroutine of a transport waits for: one outcome, a deadline, the end.

    Args:
        deadline: of the caller, in seconds of ``time.monotonic()``; ``None``: it did not say.
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
        """Give the outcome to whoever waits. Does nothing where there is one."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    async def outcome(self) -> Outcome:
        """Return the outcome once it is there. The deadline is watched meanwhile; cancelled, the caller has left."""
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
        """Tell whoever serves the call that it ends."""
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(why)


class ContextExchange:
    """What a caller sent along, read from the context that grpcio gives a servicer."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def metadatum(self, key: str) -> str | None:
        """Return the value of one key of the metadata; ``None`` without one."""
        pairs: Iterable[tuple[str, Any]] = self._context.invocation_metadata() or ()
        return next((str(value) for name, value in pairs if name == key), None)

    def certificate(self) -> bytes | None:
        """Return the caller's certificate in PEM; ``None`` without one."""
        presented = self._context.auth_context().get(CERTIFICATE_KEY)
        return bytes(presented[0]) if presented else None

    def caller_deadline(self) -> float | None:
        """Return when the caller waits no more, in seconds of ``time.monotonic()``; ``None``: it did not say."""
        remaining = self._context.time_remaining()
        return None if remaining is None else time.monotonic() + remaining
