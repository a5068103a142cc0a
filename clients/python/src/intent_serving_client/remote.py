"""Errors of failed calls to another of our services."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, Protocol

from grpc import StatusCode

from intent_serving_client.errors import DEADLINE_MESSAGE, INTERNAL_MESSAGE, ServingError, Status, error_of
from intent_serving_client.metadata import REQUEST_ID_KEY, RETRY_AFTER_KEY


class FailedCall(Protocol):
    """Error of a call on a blocking or an asyncio channel."""

    def code(self) -> StatusCode:
        """Return the status code of the call."""

    def details(self) -> str | None:
        """Return the message of the status."""

    def trailing_metadata(self) -> Iterable[tuple[str, Any]] | None:
        """Return the trailing metadata of the call."""


# gRPC's own messages reveal internals and addresses; callers get these messages instead.
_TRANSPORT_MESSAGES: Final = {
    StatusCode.UNAVAILABLE: "the {service} cannot be reached at the moment; try again",
    StatusCode.DEADLINE_EXCEEDED: DEADLINE_MESSAGE,
    StatusCode.CANCELLED: "the {service} did not accept the call; try again",
    StatusCode.RESOURCE_EXHAUSTED: "the {service} accepts no more at the moment, or the request is too "
    "large; send less",
    StatusCode.UNIMPLEMENTED: "the {service} does not know this method; run both sides at the same version",
}


_SECONDS: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?")

# Codes that gRPC itself never produces: a status with one of them is from the service.
_NEVER_OF_GRPC: Final = frozenset(
    {
        StatusCode.INVALID_ARGUMENT,
        StatusCode.NOT_FOUND,
        StatusCode.ALREADY_EXISTS,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.ABORTED,
        StatusCode.OUT_OF_RANGE,
        StatusCode.DATA_LOSS,
    }
)


def _seconds(text: str | bytes | None) -> float | None:
    return float(text) if isinstance(text, str) and _SECONDS.fullmatch(text) else None


def is_of_service(failed: FailedCall) -> bool:
    """Return whether the status is from our service, and not from gRPC itself."""
    return failed.code() in _NEVER_OF_GRPC or REQUEST_ID_KEY in dict(failed.trailing_metadata() or ())


def error_of_call(failed: FailedCall, service: str) -> ServingError:
    """Return the error of a call to ``service``.

    A status from our service is passed on unchanged; it is recognized by its code or by the request id in its metadata.
    A status from gRPC itself keeps its code and gets one of our messages. There are two exceptions: CANCELLED becomes
    UNAVAILABLE, and UNKNOWN, which carries no information, becomes INTERNAL.
    """
    code = failed.code()
    if is_of_service(failed):
        error = error_of(Status(code, failed.details() or ""))
        error.retry_after = _seconds(dict(failed.trailing_metadata() or ()).get(RETRY_AFTER_KEY))
        return error
    if code in _TRANSPORT_MESSAGES:
        message = _TRANSPORT_MESSAGES[code].format(service=service)
        # CANCELLED is not from the caller, which would not read this error: the other side's queue was full.
        return error_of(Status(StatusCode.UNAVAILABLE if code is StatusCode.CANCELLED else code, message))
    if code in (StatusCode.UNKNOWN, StatusCode.INTERNAL):
        return error_of(Status(StatusCode.INTERNAL, INTERNAL_MESSAGE))
    return error_of(Status(code, f"the {service} denies the call"))
