"""Which errors say something of a version on trial, and which of other things."""

from __future__ import annotations

from typing import Final

from grpc import StatusCode

from serving.domain.errors import DeadlineExceeded, ServingError

# An engine that cannot be reached, or a caller who may not ask, would be the same with any version.
_OF_OTHERS: Final = frozenset({StatusCode.UNAVAILABLE, StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED})


class TooSlow(DeadlineExceeded):
    """A version on trial had a second or more, and has not answered."""


def speaks_against(error: ServingError) -> bool:
    """Return whether an error speaks against the version that it is of, where stable answers the same query.

    All do but those of a service that cannot be reached, of a caller who may not ask, and of a deadline so short that
    it tells nothing.
    """
    if isinstance(error, DeadlineExceeded):
        return isinstance(error, TooSlow)
    return error.code not in _OF_OTHERS
