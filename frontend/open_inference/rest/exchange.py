"""A request of plain HTTP as the boundary sees it: what the caller sent along, and the way back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from grpc import StatusCode
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from frontend.open_inference.rest.refusals import headers_of, http_status_of, refusal
from grpc_http2.alarms import Alarm, alarms_of
from grpc_http2.wire import WireError, seconds_of_timeout
from serving.call import REQUEST_ID_KEY, RETRY_AFTER_KEY
from serving.errors import InvalidRequest
from serving.transport.exchange import Ended, Metadata, RawMetadata

# KServe and Triton have none; gateways of gRPC take its own.
_TIMEOUT_HEADER: Final = "grpc-timeout"


class RestExchange:
    """An :class:`~serving.transport.exchange.Exchange` that a coroutine of an ASGI application waits for.

    Args:
        scope: of the request.

    Raises:
        InvalidRequest: its deadline is not well written.
    """

    def __init__(self, scope: Scope) -> None:
        self.path_parameters: dict[str, str] = scope["path_params"]
        self.headers = Headers(scope=scope)
        self.deadline = _deadline_in(self.headers)
        self.on_end: Callable[[Ended], object] | None = None
        self.http_status: int | None = None
        """The HTTP status of a failure that has one of its own."""
        self._response: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        self._certificate: Any = scope.get("extensions", {}).get("tls", {}).get("client_certificate")

    def metadatum(self, key: str) -> str | None:
        """Return the value of a header; ``None`` without one."""
        return self.headers.get(key)

    def certificate(self) -> bytes | None:
        """Return the caller's certificate in PEM; ``None`` without one."""
        found = self._certificate
        return None if found is None else bytes(found)

    def answer(self, response: Response, metadata: RawMetadata = ()) -> None:
        """Give the response."""
        self._finish(response, [(key.decode(), value.decode()) for key, value in metadata])

    def fail(self, code: StatusCode, message: str, metadata: Metadata = ()) -> None:
        """Give a refusal instead."""
        response = refusal(self.http_status or http_status_of(code), message)
        response.headers.update(headers_of(code, dict(metadata).get(RETRY_AFTER_KEY)))
        self._finish(response, metadata)

    def leave(self) -> None:
        """End the call: its caller has left."""
        self._end(Ended.CALLER_LEFT)
        if not self._response.done():
            self._response.set_result(None)

    async def response(self) -> Response | None:
        """Return the response once it is there; ``None`` where the caller has left."""
        alarm: Alarm | None = None
        if self.deadline is not None:
            loop = asyncio.get_running_loop()
            alarm = alarms_of(loop).after(self.deadline - time.monotonic(), self._end, Ended.DEADLINE)
        try:
            return await self._response
        except asyncio.CancelledError:
            self._end(Ended.CALLER_LEFT)
            raise
        finally:
            self.on_end = None
            if alarm is not None:
                alarm.cancel()

    def _finish(self, response: Response, metadata: Metadata) -> None:
        mark = dict(metadata).get(REQUEST_ID_KEY)
        if mark is not None:
            response.headers[REQUEST_ID_KEY] = mark
        if not self._response.done():
            self._response.set_result(response)

    def _end(self, why: Ended) -> None:
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(why)


def _deadline_in(headers: Headers) -> float | None:
    timeout = headers.get(_TIMEOUT_HEADER)
    if timeout is None:
        return None
    try:
        return time.monotonic() + seconds_of_timeout(timeout.encode("latin-1"))
    except WireError as error:
        raise InvalidRequest(str(error)) from error
