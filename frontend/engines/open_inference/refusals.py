"""Errors for calls that a third-party server refused. The messages are ours: the server's may reveal its internals."""

from __future__ import annotations

from typing import Final

from grpc import StatusCode

from intent_serving_client.remote import FailedCall
from serving.domain.errors import DEADLINE_MESSAGE, InvalidManifest, ModelIncomplete, ServingError, Status, error_of

# Triton's message, sent with NOT_FOUND today and with UNAVAILABLE in earlier releases.
_UNKNOWN_MODEL: Final = "Request for unknown model"

_FAILED: Final = Status(StatusCode.INTERNAL, "the engine failed to answer; its log may say why")
_REFUSED: Final = Status(
    StatusCode.INVALID_ARGUMENT,
    "the engine refused the request: OpenInference in manifest.json does not describe the model's tensors, "
    "or the model does not accept the document",
)
_UNABLE: Final = Status(
    StatusCode.FAILED_PRECONDITION, "the engine cannot serve the model as it is; check the model at the engine"
)
_NOT_ALLOWED: Final = "the engine denies the call; give the frontend's address access to the engine"

_STATUSES: Final = {
    StatusCode.INVALID_ARGUMENT: _REFUSED,
    StatusCode.OUT_OF_RANGE: _REFUSED,
    StatusCode.FAILED_PRECONDITION: _UNABLE,
    # Triton: this call does not support a decoupled model, which may answer any number of times.
    StatusCode.UNIMPLEMENTED: Status(
        StatusCode.FAILED_PRECONDITION,
        "the engine does not accept inference calls of the Open Inference Protocol for the model; check "
        "the route of the model's Algorithm, and the model at the engine",
    ),
    StatusCode.RESOURCE_EXHAUSTED: Status(
        StatusCode.RESOURCE_EXHAUSTED,
        "the engine accepts no more at the moment, or the request is too large; send less",
    ),
    StatusCode.DEADLINE_EXCEEDED: Status(StatusCode.DEADLINE_EXCEEDED, DEADLINE_MESSAGE),
    StatusCode.UNAVAILABLE: Status(
        StatusCode.UNAVAILABLE, "the engine cannot be reached at the moment, or is not ready; try again"
    ),
    # The caller did not cancel, or it would not receive this error: the server's queue was full.
    StatusCode.CANCELLED: Status(StatusCode.UNAVAILABLE, "the engine did not accept the call; try again"),
    StatusCode.PERMISSION_DENIED: Status(StatusCode.PERMISSION_DENIED, _NOT_ALLOWED),
    StatusCode.UNAUTHENTICATED: Status(StatusCode.UNAUTHENTICATED, _NOT_ALLOWED),
}

_MAY_BE_OF_ONE: Final = frozenset({StatusCode.INVALID_ARGUMENT, StatusCode.INTERNAL, StatusCode.FAILED_PRECONDITION})


def error_of_refusal(failed: FailedCall) -> ServingError:
    """Return the error for an inference call that the engine, or gRPC on the way to it, refused."""
    return error_of(_STATUSES.get(failed.code(), _FAILED))


def refuses_request(failed: FailedCall) -> bool:
    """Return whether the engine refused the call because of the content of the request."""
    return _STATUSES.get(failed.code()) is _REFUSED


def is_unknown_model(failed: FailedCall) -> bool:
    """Return whether the engine refused the call because it has no such model."""
    code = failed.code()
    return code is StatusCode.NOT_FOUND or (
        code is StatusCode.UNAVAILABLE and (failed.details() or "").startswith(_UNKNOWN_MODEL)
    )


def may_be_of_one(error: ServingError) -> bool:
    """Return whether a batch may have failed because of one of its documents, or because it was a batch."""
    return error.code in _MAY_BE_OF_ONE and not isinstance(error, ModelIncomplete | InvalidManifest)
