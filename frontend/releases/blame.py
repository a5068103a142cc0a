"""Classification of errors: attributed to a version on trial, or to other causes."""

from __future__ import annotations

from typing import Final

from grpc import StatusCode

from serving.domain.errors import DeadlineExceeded, ServingError

# An unreachable engine, or a caller without the right, would fail in the same way with any version.
_OF_OTHERS: Final = frozenset({StatusCode.UNAVAILABLE, StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED})


class TooSlow(DeadlineExceeded):
    """A version on trial had a second or more, and did not answer."""


def speaks_against(error: ServingError) -> bool:
    """Return whether an error speaks against the version that it comes from, given that stable answers the same query.

    All errors do, except those of an unreachable service, of a caller without the right, and of a deadline too short
    to be conclusive.
    """
    if isinstance(error, DeadlineExceeded):
        return isinstance(error, TooSlow)
    return error.code not in _OF_OTHERS
