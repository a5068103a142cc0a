from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from grpc import StatusCode

from serving.domain import errors
from serving.domain.errors import (
    INTERNAL_MESSAGE,
    RemoteError,
    ServingError,
    Status,
    copy_for_raise,
    error_of,
    status_of,
)

CODES = {
    errors.InvalidRequest: StatusCode.INVALID_ARGUMENT,
    errors.CallerLeft: StatusCode.CANCELLED,
    errors.InvalidModelId: StatusCode.INVALID_ARGUMENT,
    errors.DocumentTooLarge: StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFound: StatusCode.NOT_FOUND,
    errors.ModelExists: StatusCode.ALREADY_EXISTS,
    errors.ModelPinned: StatusCode.FAILED_PRECONDITION,
    errors.FilesChanged: StatusCode.FAILED_PRECONDITION,
    errors.ModelUnusable: StatusCode.FAILED_PRECONDITION,
    errors.ModelIncomplete: StatusCode.FAILED_PRECONDITION,
    errors.InvalidManifest: StatusCode.FAILED_PRECONDITION,
    errors.InvalidModelFile: StatusCode.FAILED_PRECONDITION,
    errors.ForbiddenPickle: StatusCode.FAILED_PRECONDITION,
    errors.NoBackend: StatusCode.FAILED_PRECONDITION,
    errors.ChecksumMismatch: StatusCode.DATA_LOSS,
    errors.OutOfCapacity: StatusCode.RESOURCE_EXHAUSTED,
    errors.ModelTooLarge: StatusCode.RESOURCE_EXHAUSTED,
    errors.MemoryInUse: StatusCode.RESOURCE_EXHAUSTED,
    errors.TooManyLoads: StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    errors.Unavailable: StatusCode.UNAVAILABLE,
    errors.VolumeUnavailable: StatusCode.UNAVAILABLE,
    errors.NonFiniteLogits: StatusCode.INTERNAL,
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: StatusCode.PERMISSION_DENIED,
    errors.QuotaExceeded: StatusCode.RESOURCE_EXHAUSTED,
    errors.Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    errors.InvalidRelease: StatusCode.FAILED_PRECONDITION,
    errors.ReleaseRefused: StatusCode.FAILED_PRECONDITION,
    errors.ReleaseConflict: StatusCode.ABORTED,
    errors.ModelInService: StatusCode.FAILED_PRECONDITION,
    errors.VolumeReadOnly: StatusCode.FAILED_PRECONDITION,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_an_error_of_ours_reaches_the_caller_with_its_code_and_its_own_text(
    kind: type[ServingError], code: StatusCode
) -> None:
    assert status_of(kind("what to do")) == Status(code, "what to do")


@pytest.mark.parametrize(
    "error",
    [ValueError("/models/7/model.pth"), KeyError("secret"), RuntimeError(), MemoryError(), RecursionError("deep")],
    ids=lambda error: type(error).__name__,
)
def test_a_foreign_error_reaches_the_caller_as_internal_with_a_fixed_text(error: Exception) -> None:
    assert status_of(error) == Status(StatusCode.INTERNAL, INTERNAL_MESSAGE)


def test_a_cancelled_call_is_told_as_cancelled() -> None:
    assert status_of(asyncio.CancelledError()).code is StatusCode.CANCELLED


@pytest.mark.parametrize("code", StatusCode, ids=lambda code: code.name)
def test_the_status_of_another_service_passes_through_unchanged(code: StatusCode) -> None:
    status = Status(code, "the other service's own words")
    assert status_of(error_of(status)) == status


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (StatusCode.INVALID_ARGUMENT, errors.InvalidRequest),
        (StatusCode.NOT_FOUND, errors.ModelNotFound),
        (StatusCode.FAILED_PRECONDITION, errors.ModelUnusable),
        (StatusCode.RESOURCE_EXHAUSTED, errors.OutOfCapacity),
        (StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (StatusCode.UNAVAILABLE, errors.Unavailable),
        (StatusCode.UNAUTHENTICATED, errors.Unauthenticated),
        (StatusCode.PERMISSION_DENIED, errors.PermissionDenied),
        (StatusCode.ABORTED, errors.ReleaseConflict),
        (StatusCode.OUT_OF_RANGE, RemoteError),
    ],
)
def test_a_status_of_another_service_is_caught_by_the_class_that_ours_would_have(
    code: StatusCode, kind: type[ServingError]
) -> None:
    assert isinstance(error_of(Status(code, "")), kind)


@pytest.mark.parametrize("code", [StatusCode.NOT_FOUND, StatusCode.ABORTED], ids=lambda code: code.name)
def test_an_error_told_again_says_the_same_and_leaves_the_first_one_as_it_is(code: StatusCode) -> None:
    cause = OSError("for the log")
    try:
        raise error_of(Status(code, "what to do")) from cause
    except ServingError as error:
        first = error
    copy = copy_for_raise(first)
    assert copy is not first
    assert status_of(copy) == Status(code, "what to do")
    assert copy.__cause__ is cause
    assert copy.__traceback__ is None
    assert first.__traceback__ is not None


def test_errors_that_are_not_listed_above_have_the_code_of_one_that_is() -> None:
    def descendants(kind: type[ServingError]) -> Iterator[type[ServingError]]:
        for child in kind.__subclasses__():
            yield child
            yield from descendants(child)

    for kind in descendants(ServingError):
        nearest = next((ancestor for ancestor in kind.__mro__ if ancestor in CODES), None)
        assert kind is RemoteError or (nearest is not None and kind.code is CODES[nearest]), kind
