"""The one tree of errors, each class with its gRPC status, and the one place that turns errors into statuses.

A message is read by the caller of the service: it says in plain words what to do, and names no path, no class and no
text of a foreign exception. What an operator needs beyond that goes into the log, through ``__cause__``.
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
    """A gRPC status: what a caller sees of an error."""

    code: StatusCode
    message: str


class ServingError(Exception):
    """Root of the tree. ``code`` is the gRPC status of the class; ``str(error)`` is the caller's message."""

    code: StatusCode = StatusCode.INTERNAL
    tried_enough = False
    """Whether all that helps was tried here already, so that libraries are not to repeat the call by themselves."""
    retry_after: float | None = None
    """Seconds after which trying again makes sense, where that is known; callers get it as metadata."""
    was_logged = False
    """Whether a log line has told of it, or was left out because there are too many like it."""


# Who the caller is.


class Unauthenticated(ServingError):
    """The call has no credential, or one that is unknown, expired or damaged."""

    code = StatusCode.UNAUTHENTICATED


class PermissionDenied(ServingError):
    """The caller may not do this. The message is the same whether or not what was asked for exists."""

    code = StatusCode.PERMISSION_DENIED


# What the caller got wrong.


class InvalidRequest(ServingError):
    """The request cannot be served as it stands; the same request will fail again."""

    code = StatusCode.INVALID_ARGUMENT


class InvalidModelId(InvalidRequest):
    """The model id is not in the closed grammar of ids. Raised before any file-system call."""


class DocumentTooLarge(InvalidRequest):
    """The document has more bytes than the service takes."""


class InvalidConnection(InvalidRequest):
    """What a client was given to connect with cannot be used. Raised by clients, before anything is sent."""


class ModelNotFound(ServingError):
    """No model has this id."""

    code = StatusCode.NOT_FOUND


class ModelExists(ServingError):
    """A model of this id is published already."""

    code = StatusCode.ALREADY_EXISTS


# What the model's publisher got wrong.


class ModelUnusable(ServingError):
    """The model is there and cannot be served as it is; its publisher has to act."""

    code = StatusCode.FAILED_PRECONDITION


class ModelIncomplete(ModelUnusable):
    """Files of the model are missing, as while an upload is under way."""


class FilesChanged(ModelIncomplete):
    """The model's files changed while they were read."""


class InvalidManifest(ModelUnusable):
    """manifest.json is not what the contract says."""


class InvalidRelease(ModelUnusable):
    """release.json is not what it has to be."""


class InvalidModelFile(ModelUnusable):
    """A model file is damaged, oversized or inconsistent with its neighbours."""


class ForbiddenPickle(InvalidModelFile):
    """A model file asks for code that model files have no business with. Nothing was executed."""


class ChecksumMismatch(ServingError):
    """A file of the model is not the one its manifest describes: it was damaged, or is of another copy."""

    code = StatusCode.DATA_LOSS


class ReleaseRefused(ModelUnusable):
    """A version cannot go live as it was asked for; what was live stays."""


class ReleaseConflict(ServingError):
    """Somebody else has changed the release meanwhile."""

    code = StatusCode.ABORTED


class ModelInService(ServingError):
    """The model is protected: it is live, or may become so again."""

    code = StatusCode.FAILED_PRECONDITION


class VolumeReadOnly(ServingError):
    """This service may read the model volume only."""

    code = StatusCode.FAILED_PRECONDITION


class ModelPinned(ServingError):
    """The model is kept in memory by the predictor's settings."""

    code = StatusCode.FAILED_PRECONDITION


class NoBackend(ModelUnusable):
    """No engine is configured for the manifest's algorithm."""


# What the service cannot do at the moment.


class OutOfCapacity(ServingError):
    """A bound of the service is reached."""

    code = StatusCode.RESOURCE_EXHAUSTED


class QuotaExceeded(OutOfCapacity):
    """A tenant asks for more than it may; others are not affected."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(OutOfCapacity):
    """The service is asked for more than it can answer in time."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelTooLarge(OutOfCapacity):
    """The model alone exceeds the whole memory budget."""


class MemoryInUse(OutOfCapacity):
    """Every resident model is in use, so there is no memory for another."""


class TooManyLoads(OutOfCapacity):
    """The queue of models to load is full."""


class DeadlineExceeded(ServingError):
    """The caller's deadline passed."""

    code = StatusCode.DEADLINE_EXCEEDED


class CallerLeft(ServingError):
    """The caller went away before its request was complete."""

    code = StatusCode.CANCELLED


class Unavailable(ServingError):
    """The service, or what it depends on, cannot answer at the moment; trying again may help."""

    code = StatusCode.UNAVAILABLE


class VolumeUnavailable(Unavailable):
    """The shared volume failed to answer, twice."""

    tried_enough = True


class NonFiniteLogits(ServingError):
    """The network's answer is not a number."""

    code = StatusCode.INTERNAL


class RemoteError(ServingError):
    """What another service answered with a status that has no class of its own here."""

    def __init__(self, message: str, code: StatusCode = StatusCode.INTERNAL) -> None:
        super().__init__(message)
        self.code = code


def status_of(error: BaseException) -> Status:
    """Return the status a caller sees for ``error``; foreign errors become INTERNAL with a fixed text."""
    if isinstance(error, ServingError):
        return Status(error.code, str(error))
    if isinstance(error, asyncio.CancelledError):
        return Status(StatusCode.CANCELLED, "the call was cancelled")
    return Status(StatusCode.INTERNAL, INTERNAL_MESSAGE)


def error_of(status: Status) -> ServingError:
    """Return the error that another service told with ``status``; :func:`status_of` gives the same status back."""
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


def service_ends() -> Unavailable:
    """Return the error of a call that the service ends before it can answer."""
    return Unavailable("the service is ending; try again")


def copy_for_raise(error: ServingError) -> ServingError:
    """Return a copy of ``error`` to raise to another caller: a raised error gathers the traceback of each raise."""
    fresh = copy.copy(error).with_traceback(None)
    fresh.__cause__ = error.__cause__
    return fresh
