"""A plain HTTP request as the boundary sees it: the metadata of the caller, and the way to respond."""

from __future__ import annotations

import time
from typing import Any, Final

from grpc import StatusCode
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from frontend.open_inference.rest.refusals import headers_of, http_status_of, refusal
from grpc_http2.wire import WireError, seconds_of_timeout
from intent_serving_client.metadata import REQUEST_ID_KEY, RETRY_AFTER_KEY
from serving.domain.errors import InvalidRequest
from serving.transport.exchange import Awaited, Ended, Metadata, RawMetadata

# KServe and Triton define no timeout header; gRPC gateways accept gRPC's own.
_TIMEOUT_HEADER: Final = "grpc-timeout"


class RestExchange(Awaited["Response | None"]):
    """An :class:`~serving.transport.exchange.Exchange` that a coroutine of an ASGI application waits for.

    The outcome is the response, or ``None`` if the caller has disconnected.

    Args:
        scope: ASGI scope of the request.

    Raises:
        InvalidRequest: the deadline in the header is malformed.
    """

    def __init__(self, scope: Scope) -> None:
        self.path_parameters: dict[str, str] = scope["path_params"]
        self.headers = Headers(scope=scope)
        super().__init__(_deadline_in(self.headers))
        self.http_status: int | None = None
        """HTTP status of a failure that has a specific one; otherwise ``None``."""
        self._certificate: Any = scope.get("extensions", {}).get("tls", {}).get("client_certificate")

    def metadatum(self, key: str) -> str | None:
        """Return the value of a header; ``None`` without one."""
        return self.headers.get(key)

    def certificate(self) -> bytes | None:
        """Return the caller's certificate in PEM; ``None`` without one."""
        found = self._certificate
        return None if found is None else bytes(found)

    def answer(self, response: Response, metadata: RawMetadata = ()) -> None:
        """End the call with the response."""
        self._finish(response, [(key.decode(), value.decode()) for key, value in metadata])

    def fail(self, code: StatusCode, message: str, metadata: Metadata = ()) -> None:
        """End the call with a refusal."""
        response = refusal(self.http_status or http_status_of(code), message)
        response.headers.update(headers_of(code, dict(metadata).get(RETRY_AFTER_KEY)))
        self._finish(response, metadata)

    def leave(self) -> None:
        """End the call because its caller has disconnected."""
        self.end(Ended.CALLER_LEFT)
        self.give(None)

    def _finish(self, response: Response, metadata: Metadata) -> None:
        mark = dict(metadata).get(REQUEST_ID_KEY)
        if mark is not None:
            response.headers[REQUEST_ID_KEY] = mark
        self.give(response)


def _deadline_in(headers: Headers) -> float | None:
    timeout = headers.get(_TIMEOUT_HEADER)
    if timeout is None:
        return None
    try:
        return time.monotonic() + seconds_of_timeout(timeout.encode("latin-1"))
    except WireError as error:
        raise InvalidRequest(str(error)) from error
