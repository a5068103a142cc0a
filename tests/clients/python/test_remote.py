from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from grpc import StatusCode

from intent_serving_client.metadata import REQUEST_ID_KEY
from intent_serving_client.remote import error_of_call
from serving.domain.errors import INTERNAL_MESSAGE, Status, Unavailable, status_of
from tests.serving.refusals import assert_fit_for_callers

CODES = [code for code in StatusCode if code is not StatusCode.OK]
OURS = ((REQUEST_ID_KEY, "request-1"),)
INSIDES = (
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.7:51002: Failed to connect to remote host: "
    "connect: Connection refused (111) in /src/core/lib/surface.cc"
)


class FakeFailedCall:
    """A failed call with any status, including statuses that our servers never return."""

    def __init__(
        self, code: StatusCode, details: str | None, trailing_metadata: Sequence[tuple[str, str]] | None
    ) -> None:
        self._code = code
        self._details = details
        self._trailing_metadata = trailing_metadata

    def code(self) -> StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> Sequence[tuple[str, str]] | None:
        return self._trailing_metadata


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_a_status_that_our_service_gave_passes_unchanged(code: StatusCode) -> None:
    error = error_of_call(FakeFailedCall(code, "its own words", OURS), "predictor")
    assert status_of(error) == Status(code, "its own words")


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("1.500", 1.5), ("0.050", 0.05), ("soon", None), ("-1", None), ("nan", None), ("9" * 40, None)],
)
def test_when_to_try_again_passes_on_where_it_can_be_read(told: str, seconds: float | None) -> None:
    call = FakeFailedCall(StatusCode.RESOURCE_EXHAUSTED, "later", (*OURS, ("retry-after", told)))
    assert error_of_call(call, "predictor").retry_after == seconds


def test_a_status_of_ours_without_a_message_stays_without() -> None:
    error = error_of_call(FakeFailedCall(StatusCode.NOT_FOUND, None, OURS), "predictor")
    assert status_of(error) == Status(StatusCode.NOT_FOUND, "")


NEVER_OF_GRPC = [
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.ALREADY_EXISTS,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.ABORTED,
    StatusCode.OUT_OF_RANGE,
    StatusCode.DATA_LOSS,
]


@pytest.mark.parametrize("code", NEVER_OF_GRPC, ids=lambda code: code.name)
def test_a_status_that_grpc_never_gives_is_the_predictors_own_with_or_without_our_mark(code: StatusCode) -> None:
    error = error_of_call(FakeFailedCall(code, "its own words", ()), "predictor")
    assert status_of(error) == Status(code, "its own words")


@pytest.mark.parametrize("trailing", [None, (), (("another-key", "x"),)], ids=["none", "empty", "foreign"])
@pytest.mark.parametrize("code", [code for code in CODES if code not in NEVER_OF_GRPC], ids=lambda code: code.name)
def test_nothing_of_the_insides_of_grpc_is_told(code: StatusCode, trailing: Sequence[tuple[str, str]] | None) -> None:
    error = error_of_call(FakeFailedCall(code, INSIDES, trailing), "predictor")
    assert_fit_for_callers(error)
    assert not re.search(r"ipv4|10\.0\.0|refused|src|UNKNOWN", str(error))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (StatusCode.UNAVAILABLE, StatusCode.UNAVAILABLE),
        (StatusCode.DEADLINE_EXCEEDED, StatusCode.DEADLINE_EXCEEDED),
        (StatusCode.RESOURCE_EXHAUSTED, StatusCode.RESOURCE_EXHAUSTED),
        (StatusCode.UNIMPLEMENTED, StatusCode.UNIMPLEMENTED),
        (StatusCode.CANCELLED, StatusCode.UNAVAILABLE),
        (StatusCode.UNKNOWN, StatusCode.INTERNAL),
        (StatusCode.INTERNAL, StatusCode.INTERNAL),
        (StatusCode.PERMISSION_DENIED, StatusCode.PERMISSION_DENIED),
        (StatusCode.UNAUTHENTICATED, StatusCode.UNAUTHENTICATED),
    ],
    ids=lambda code: code.name,
)
def test_what_grpc_itself_answered_keeps_its_code_where_callers_can_act_on_it(
    code: StatusCode, told: StatusCode
) -> None:
    status = status_of(error_of_call(FakeFailedCall(code, INSIDES, ()), "predictor"))
    assert status.code is told
    assert (status.message == INTERNAL_MESSAGE) == (told is StatusCode.INTERNAL)


def test_the_service_that_cannot_be_reached_is_named() -> None:
    error = error_of_call(FakeFailedCall(StatusCode.UNAVAILABLE, INSIDES, ()), "frontend")
    assert isinstance(error, Unavailable)
    assert "the frontend cannot be reached" in str(error)
