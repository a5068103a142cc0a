"""Guards of the boundary: access control, admission, and observers of calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from grpc import StatusCode

from serving.call.call import Call
from serving.call.identity import ANYBODY, Identity, Requirement
from serving.call.presented import Presented
from serving.call.spans import Span
from serving.telemetry.call_log import CallLog
from serving.transport.admission import Admission

DEFAULT_CALLS: Final = 16_384


class Access(Protocol):
    """Access control: identifies callers and checks their rights."""

    def identify(self, presented: Presented) -> Identity:
        """Return the identity of the caller that sent ``presented``.

        Raises:
            Unauthenticated: the caller is not known.
        """

    def check_method(self, identity: Identity, required: Requirement | None) -> None:
        """Check that ``identity`` may call a method that requires ``required``; ``None``: it declares no rights.

        Raises:
            PermissionDenied: ``identity`` may not call the method.
        """

    def named(self, name: str) -> Identity:
        """Return the identity called ``name``, on whose behalf a frontend calls.

        Raises:
            PermissionDenied: the name is not known.
        """


class OpenAccess:
    """Access of a service where none is configured: every caller may do everything."""

    def identify(self, presented: Presented) -> Identity:
        """Return ``ANYBODY``."""
        del presented
        return ANYBODY

    def check_method(self, identity: Identity, required: Requirement | None) -> None:
        """Allow every method."""

    def named(self, name: str) -> Identity:
        """Return ``ANYBODY``."""
        del name
        return ANYBODY


class CallObserver(Protocol):
    """Observer that is notified of every call, on the event loop: it must take almost no time."""

    def ended(self, method: str, code: StatusCode, seconds: float) -> None:
        """Record that a call of ``method`` ended with ``code``, ``seconds`` after it arrived."""


class CallTracer(Protocol):
    """Records calls in distributed traces."""

    def begin(self, method: str, presented: Presented) -> Span | None:
        """Begin the record of a call of ``method``; ``None`` if this call is not recorded."""

    def end(self, span: Span, code: StatusCode, call: Call) -> None:
        """End the record, with the data of ``call``."""


@dataclass(frozen=True, slots=True)
class Guards:
    """All guards of a boundary."""

    access: Access = field(default_factory=OpenAccess)
    admission: Admission = field(default_factory=lambda: Admission(DEFAULT_CALLS))
    observer: CallObserver | None = None
    tracer: CallTracer | None = None
    log: CallLog = field(default_factory=CallLog)
