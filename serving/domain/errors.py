"""The tree of errors of the services. Its base classes, one for each status that callers tell apart, are the client's.

A message is for the caller of the service: the message says in plain words what to do, and contains no path, no class
and no text of an exception from elsewhere. Further details for the operator go into the log, through ``__cause__``.
"""

from __future__ import annotations

import copy

from grpc import StatusCode

from intent_serving_client.errors import (
    DEADLINE_MESSAGE,
    INTERNAL_MESSAGE,
    DeadlineExceeded,
    InvalidConnection,
    InvalidRequest,
    ModelExists,
    ModelNotFound,
    ModelUnusable,
    OutOfCapacity,
    PermissionDenied,
    ReleaseConflict,
    RemoteError,
    ServingError,
    Status,
    Unauthenticated,
    Unavailable,
    error_of,
    status_of,
)

__all__ = [
    "DEADLINE_MESSAGE",
    "INTERNAL_MESSAGE",
    "CallerLeft",
    "ChecksumMismatch",
    "DeadlineExceeded",
    "DocumentTooLarge",
    "FilesChanged",
    "ForbiddenPickle",
    "InvalidConnection",
    "InvalidManifest",
    "InvalidModelFile",
    "InvalidModelId",
    "InvalidRelease",
    "InvalidRequest",
    "MemoryInUse",
    "ModelExists",
    "ModelInService",
    "ModelIncomplete",
    "ModelNotFound",
    "ModelPinned",
    "ModelTooLarge",
    "ModelUnusable",
    "NoBackend",
    "NonFiniteLogits",
    "OutOfCapacity",
    "Overloaded",
    "PermissionDenied",
    "QuotaExceeded",
    "ReleaseConflict",
    "ReleaseRefused",
    "RemoteError",
    "ServingError",
    "Status",
    "TooManyLoads",
    "Unauthenticated",
    "Unavailable",
    "VolumeReadOnly",
    "VolumeUnavailable",
    "copy_for_raise",
    "deadline_passed",
    "error_of",
    "no_such_model",
    "service_ends",
    "status_of",
]


# Errors of the caller.


class InvalidModelId(InvalidRequest):
    """The model id does not match the grammar of ids. Raised before any file-system call."""


class DocumentTooLarge(InvalidRequest):
    """The document has more bytes than the service accepts."""


# Errors of the model's publisher.


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


class LoadTooSlow(ModelUnusable):
    """Loading the model takes more processor time than a model needs."""


class ForbiddenPickle(InvalidModelFile):
    """A model file refers to code that model files must not use. Nothing was executed."""


class ChecksumMismatch(ServingError):
    """A file of the model does not match its manifest: the file is damaged, or belongs to another copy."""

    code = StatusCode.DATA_LOSS


class ReleaseRefused(ModelUnusable):
    """A version cannot go live as requested; the release stays as it was."""


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


class CallerLeft(ServingError):
    """The caller disconnected before its request was complete."""

    code = StatusCode.CANCELLED


class VolumeUnavailable(Unavailable):
    """The shared volume failed to answer in two attempts."""

    tried_enough = True


class ModelFolderUnavailable(VolumeUnavailable):
    """The folder of all models is gone, or cannot be read; for now, it is unknown whether a model exists."""


class FilesUnsettled(Unavailable):
    """The model's files have not been unchanged for long enough, and no checksums prove that they are one copy."""

    tried_enough = True

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NonFiniteLogits(ServingError):
    """A logit of the network is not a finite number."""

    code = StatusCode.INTERNAL


def no_such_model(model_id: str) -> ModelNotFound:
    """Return the error for a model id that no model has. REQUIRES: ``model_id`` follows the grammar of ids."""
    return ModelNotFound(
        f"no model has the runId {model_id}; `intentctl models` lists the models, and `intentctl publish` adds one"
    )


def deadline_passed() -> DeadlineExceeded:
    """Return the error for a call whose deadline has passed."""
    return DeadlineExceeded(DEADLINE_MESSAGE)


def service_ends() -> Unavailable:
    """Return the error for a call that the service cannot answer because it is shutting down."""
    return Unavailable("the service is shutting down; try again")


def copy_for_raise(error: ServingError) -> ServingError:
    """Return a copy of ``error`` to raise to another caller: an error accumulates the traceback of every raise."""
    fresh = copy.copy(error).with_traceback(None)
    fresh.__cause__ = error.__cause__
    return fresh
