"""Errors of calls, each class with its gRPC status, and the only place that turns statuses into errors and back.

A message is for the caller of the service: the message says in plain words what to do, and contains no path, no class
and no text of an exception from elsewhere. Subclasses that only the services raise are in ``serving.domain.errors``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from grpc import StatusCode

INTERNAL_MESSAGE: Final = "internal error; the service's log has the details under this call's request id"
DEADLINE_MESSAGE: Final = "the deadline of the call has passed"


@dataclass(frozen=True, slots=True)
class Status:
    """gRPC status of an error, as the caller sees it."""

    code: StatusCode
    message: str


class ServingError(Exception):
    """Base class of all errors. ``code`` is the gRPC status of the class; ``str(error)`` is the caller's message."""

    code: StatusCode = StatusCode.INTERNAL
    tried_enough = False
    """Whether everything that could help was already tried here, so that client libraries must not retry the call."""
    retry_after: float | None = None
    """Seconds after which a retry makes sense, if known; sent to callers as metadata."""
    was_logged = False
    """Whether the error was logged, or its log line left out because there are too many similar ones."""


# The identity of the caller.


class Unauthenticated(ServingError):
    """The call has no credential, or one that is unknown, expired or damaged."""

    code = StatusCode.UNAUTHENTICATED


class PermissionDenied(ServingError):
    """The caller may not do this. The message is the same whether or not the requested object exists."""

    code = StatusCode.PERMISSION_DENIED


# Errors of the caller.


class InvalidRequest(ServingError):
    """The request cannot be served as it is; the same request will fail again."""

    code = StatusCode.INVALID_ARGUMENT


class InvalidConnection(InvalidRequest):
    """The connection options of a client cannot be used. Raised by clients, before anything is sent."""


class ModelNotFound(ServingError):
    """No model has this id."""

    code = StatusCode.NOT_FOUND


class ModelExists(ServingError):
    """A model with this id is already published."""

    code = StatusCode.ALREADY_EXISTS


# Errors of the model's publisher.


class ModelUnusable(ServingError):
    """The model exists, but cannot be served as it is; its publisher has to act."""

    code = StatusCode.FAILED_PRECONDITION


class ReleaseConflict(ServingError):
    """Another writer has changed the release in the meantime."""

    code = StatusCode.ABORTED


# Temporary conditions and failures of the service.


class OutOfCapacity(ServingError):
    """A limit of the service is reached."""

    code = StatusCode.RESOURCE_EXHAUSTED


class DeadlineExceeded(ServingError):
    """The caller's deadline passed."""

    code = StatusCode.DEADLINE_EXCEEDED


class Unavailable(ServingError):
    """The service, or a service it depends on, cannot answer at the moment; a retry may help."""

    code = StatusCode.UNAVAILABLE


class Unreachable(Unavailable):
    """No connection to the service. The message names its address. Raised by clients."""

    def __init__(self, message: str, is_listening: bool = True) -> None:
        super().__init__(message)
        self.is_listening = is_listening
        """Whether something accepts connections at the address."""


class NoAnswerInTime(DeadlineExceeded):
    """The deadline passed before the service answered. The message names its address. Raised by clients."""


class RemoteError(ServingError):
    """An error of another service, whose status has no class of its own here."""

    def __init__(self, message: str, code: StatusCode = StatusCode.INTERNAL) -> None:
        super().__init__(message)
        self.code = code


def status_of(error: BaseException) -> Status:
    """Return the status that a caller sees for ``error``; all other exceptions become INTERNAL with a fixed message."""
    if isinstance(error, ServingError):
        return Status(error.code, str(error))
    if isinstance(error, asyncio.CancelledError):
        return Status(StatusCode.CANCELLED, "the call was cancelled")
    return Status(StatusCode.INTERNAL, INTERNAL_MESSAGE)


def error_of(status: Status) -> ServingError:
    """Return the error for a ``status`` of another service; :func:`status_of` maps the error to the same status."""
    kind = _KINDS.get(status.code)
    return RemoteError(status.message, status.code) if kind is None else kind(status.message)


_KINDS: Final[dict[StatusCode, type[ServingError]]] = {
    kind.code: kind
    for kind in (
        Unauthenticated,
        PermissionDenied,
        InvalidRequest,
        ModelNotFound,
        ModelExists,
        ModelUnusable,
        ReleaseConflict,
        OutOfCapacity,
        DeadlineExceeded,
        Unavailable,
    )
}
