"""What a failed call to another of our services means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

from grpc import StatusCode

from serving.call import REQUEST_ID_KEY
from serving.errors import INTERNAL_MESSAGE, ServingError, Status, error_of


class FailedCall(Protocol):
    """A call's error, of a blocking or of an asyncio channel."""

    def code(self) -> StatusCode:
        """Return its status code."""

    def details(self) -> str | None:
        """Return its message."""

    def trailing_metadata(self) -> Iterable[tuple[str, Any]] | None:
        """Return what came with it."""


# What gRPC itself answers tells how its insides went, with addresses; callers get these words instead.
_TRANSPORT_MESSAGES: Final = {
    StatusCode.UNAVAILABLE: "the {service} cannot be reached at the moment; try again",
    StatusCode.DEADLINE_EXCEEDED: "the deadline of the call has passed",
    StatusCode.CANCELLED: "the {service} did not take the call; try again",
    StatusCode.RESOURCE_EXHAUSTED: "the request, or its answer, is larger than a message may be; send less at once",
    StatusCode.UNIMPLEMENTED: "the {service} does not know this call; bring both sides to one version",
}


def error_of_call(failed: FailedCall, service: str) -> ServingError:
    """Return the error of a call to ``service``.

    A status that our service gave, known by the mark that it puts on its answers, passes unchanged. One that gRPC gave
    keeps its code and gets words of ours; codes that only a fault of the transport can have become INTERNAL.
    """
    code = failed.code()
    if any(key == REQUEST_ID_KEY for key, _ in failed.trailing_metadata() or ()):
        return error_of(Status(code, failed.details() or ""))
    if code in _TRANSPORT_MESSAGES:
        message = _TRANSPORT_MESSAGES[code].format(service=service)
        # The caller did not cancel, or it would not read this: the other side's queue was full.
        return error_of(Status(StatusCode.UNAVAILABLE if code is StatusCode.CANCELLED else code, message))
    return error_of(Status(StatusCode.INTERNAL, INTERNAL_MESSAGE))
