"""The tree of errors, each class with its gRPC status, and the only place that turns errors into statuses.

A message is for the caller of the service: the message says in plain words what to do, and contains no path, no class
and no text of a foreign exception. Further details for the operator go into the log, through ``__cause__``.
"""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass
from typing import Final

from grpc import StatusCode

INTERNAL_MESSAGE: Final = "internal error; the service's log has the details under this call's request id"


@dataclass(frozen=True, slots=True)
class Status:
    """gRPC status of an error, as the caller sees it."""

    code: StatusCode
    message: str


class ServingError(Exception):
    """Root of the tree. ``code`` is the gRPC status of the class; ``str(error)`` is the caller's message."""

    code: StatusCode = StatusCode.INTERNAL
    tried_enough = False
    """Whether everything that could help was tried here already, so that client libraries must not retry the call."""
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


class InvalidModelId(InvalidRequest):
    """The model id does not match the grammar of ids. Raised before any file-system call."""


class DocumentTooLarge(InvalidRequest):
    """The document has more bytes than the service accepts."""


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


class ModelIncomplete(ModelUnusable):
    """Files of the model are missing, for example during an upload."""


class FilesChanged(ModelIncomplete):
    """The model's files changed while they were being read."""


class InvalidManifest(ModelUnusable):
    """manifest.json does not follow the contract."""


class InvalidRelease(ModelUnusable):
    """release.json is invalid."""


class InvalidModelFile(ModelUnusable):
    """A model file is damaged, oversized or inconsistent with the model's other files."""


class ForbiddenPickle(InvalidModelFile):
    """A model file refers to code that model files must not use. Nothing was executed."""


class ChecksumMismatch(ServingError):
    """A file of the model does not match its manifest: the file is damaged, or belongs to another copy."""

    code = StatusCode.DATA_LOSS


class ReleaseRefused(ModelUnusable):
    """A version cannot go live as requested; the release stays as it was."""


class ReleaseConflict(ServingError):
    """Another writer has changed the release in the meantime."""

    code = StatusCode.ABORTED


class ModelInService(ServingError):
    """The model is protected: it is live, or may become live again."""

    code = StatusCode.FAILED_PRECONDITION


class VolumeReadOnly(ServingError):
    """This service can only read the model volume."""

    code = StatusCode.FAILED_PRECONDITION


class ModelPinned(ServingError):
    """The predictor's settings keep the model in memory."""

    code = StatusCode.FAILED_PRECONDITION


class NoBackend(ModelUnusable):
    """No engine is configured for the manifest's algorithm."""


# Temporary conditions and failures of the service.


class OutOfCapacity(ServingError):
    """A limit of the service is reached."""

    code = StatusCode.RESOURCE_EXHAUSTED


class QuotaExceeded(OutOfCapacity):
    """A tenant exceeds its quota; other tenants are not affected."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(OutOfCapacity):
    """The service receives more calls than it can answer in time."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelTooLarge(OutOfCapacity):
    """The model alone exceeds the whole memory budget."""


class MemoryInUse(OutOfCapacity):
    """Every resident model is in use, so there is no memory for another one."""


class TooManyLoads(OutOfCapacity):
    """The queue of model loads is full."""


class DeadlineExceeded(ServingError):
    """The caller's deadline passed."""

    code = StatusCode.DEADLINE_EXCEEDED


class CallerLeft(ServingError):
    """The caller disconnected before its request was complete."""

    code = StatusCode.CANCELLED


class Unavailable(ServingError):
    """The service, or a service it depends on, cannot answer at the moment; a retry may help."""

    code = StatusCode.UNAVAILABLE


class VolumeUnavailable(Unavailable):
    """The shared volume failed to answer in two attempts."""

    tried_enough = True


class NonFiniteLogits(ServingError):
    """A logit of the network is not a finite number."""

    code = StatusCode.INTERNAL


class RemoteError(ServingError):
    """An error of another service, whose status has no class of its own here."""

    def __init__(self, message: str, code: StatusCode = StatusCode.INTERNAL) -> None:
        super().__init__(message)
        self.code = code


def status_of(error: BaseException) -> Status:
    """Return the status that a caller sees for ``error``; foreign errors become INTERNAL with a fixed message."""
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


def deadline_passed() -> DeadlineExceeded:
    """Return the error for a call whose deadline has passed."""
    return DeadlineExceeded("the deadline of the call has passed")


def service_ends() -> Unavailable:
    """Return the error for a call that the service cannot answer because it is shutting down."""
    return Unavailable("the service is shutting down; try again")


def copy_for_raise(error: ServingError) -> ServingError:
    """Return a copy of ``error`` to raise to another caller: an error accumulates the traceback of every raise."""
    fresh = copy.copy(error).with_traceback(None)
    fresh.__cause__ = error.__cause__
    return fresh
