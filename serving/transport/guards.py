"""What stands at the boundary beside its own work: who may call, how many at once, and who looks on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from grpc import StatusCode

from serving.call.call import Call
from serving.call.identity import ANYBODY, Asked, Identity
from serving.call.presented import Presented
from serving.call.spans import Span
from serving.telemetry.call_log import CallLog
from serving.transport.admission import Admission

DEFAULT_CALLS: Final = 16_384


class Access(Protocol):
    """Knows callers."""

    def identify(self, presented: Presented) -> Identity:
        """Return who makes the call that came with ``presented``.

        Raises:
            Unauthenticated: it is nobody that is known.
        """

    def check_method(self, identity: Identity, asked: Asked | None) -> None:
        """Return if ``identity`` may call a method that asks for ``asked``; ``None``: it says nothing of rights.

        Raises:
            PermissionDenied: they may not.
        """

    def named(self, name: str) -> Identity:
        """Return the identity of this name, in which a frontend asks.

        Raises:
            PermissionDenied: it is not known.
        """


class OpenAccess:
    """Where no access is configured: everybody may do everything."""

    def identify(self, presented: Presented) -> Identity:
        """Return anybody."""
        del presented
        return ANYBODY

    def check_method(self, identity: Identity, asked: Asked | None) -> None:
        """Allow it."""

    def named(self, name: str) -> Identity:
        """Return anybody."""
        del name
        return ANYBODY


class CallObserver(Protocol):
    """Is told of every call. Called on the event loop, and for each call: it must take next to no time."""

    def ended(self, method: str, code: StatusCode, seconds: float) -> None:
        """It has ended, ``seconds`` after it arrived."""


class CallTracer(Protocol):
    """Records calls in distributed traces."""

    def begin(self, method: str, presented: Presented) -> Span | None:
        """Begin the record of a call of ``method``; ``None`` where this one is not recorded."""

    def end(self, span: Span, code: StatusCode, call: Call) -> None:
        """End it, with what is known of the call by now."""


@dataclass(frozen=True, slots=True)
class Guards:
    """Everything that the boundary asks and tells."""

    access: Access = field(default_factory=OpenAccess)
    admission: Admission = field(default_factory=lambda: Admission(DEFAULT_CALLS))
    observer: CallObserver | None = None
    tracer: CallTracer | None = None
    log: CallLog = field(default_factory=CallLog)
