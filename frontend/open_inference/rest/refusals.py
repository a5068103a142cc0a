"""Errors as callers of the REST API see them: an HTTP status, and JSON with the message."""

from __future__ import annotations

import math
from typing import Final

from grpc import StatusCode
from starlette.responses import JSONResponse

_INTERNAL_SERVER_ERROR: Final = 500
# Mapping of google.rpc.Code; any other code is an internal error.
_HTTP_STATUSES: Final = {
    StatusCode.CANCELLED: 499,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.DEADLINE_EXCEEDED: 504,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.ABORTED: 409,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
}


def http_status_of(code: StatusCode | None) -> int:
    """Return the HTTP status of a call that ended with ``code``."""
    return _INTERNAL_SERVER_ERROR if code is None else _HTTP_STATUSES.get(code, _INTERNAL_SERVER_ERROR)


def headers_of(code: StatusCode | None, retry_after: str | None) -> dict[str, str]:
    """Return the headers that HTTP requires with the status of a call that ended with ``code``.

    Args:
        code: status code of the call.
        retry_after: time after which a retry makes sense, in seconds; ``None`` if unknown.
    """
    headers = {}
    if code is StatusCode.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    if retry_after is not None:
        # Whole seconds, by RFC 9110, section 10.2.3.
        headers["retry-after"] = str(math.ceil(float(retry_after)))
    return headers


def refusal(http_status: int, message: str) -> JSONResponse:
    """Return a refusal as Triton and KServe send it: an object with the message as ``error``."""
    return JSONResponse({"error": message}, http_status)
