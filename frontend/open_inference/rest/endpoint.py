"""Endpoint for one path of the REST API: each request is a call behind the boundary, like a gRPC call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

from grpc import StatusCode
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from frontend.open_inference.rest.bodies import BodyTooLarge, UnknownEncoding, body_of, compressed
from frontend.open_inference.rest.calls import RestCall
from frontend.open_inference.rest.exchange import RestExchange
from frontend.open_inference.rest.refusals import http_status_of, refusal
from serving.call.call import Call
from serving.call.identity import Requirement
from serving.domain.errors import CallerLeft, InvalidRequest
from serving.transport.boundary import Boundary

Serve: TypeAlias = Callable[[RestCall], Awaitable[Response]]


class _Arrived(NamedTuple):
    """A request whose body has not been read."""

    exchange: RestExchange
    receive: Receive


class Endpoint:
    """An ASGI application for one path and method.

    Args:
        name: name of the call in log lines.
        right: right that callers need.
        serve: answers the call.
        boundary: boundary that guards the call.
        max_body_bytes: maximum size of a body in bytes, compressed or not.
    """

    def __init__(self, name: str, right: Requirement, serve: Serve, boundary: Boundary, max_body_bytes: int) -> None:
        self._serve = serve
        self._max_body_bytes = max_body_bytes
        self._guarded = boundary.guarded(name, self._served, right)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            exchange = RestExchange(scope)
        except InvalidRequest as error:
            await refusal(http_status_of(StatusCode.INVALID_ARGUMENT), str(error))(scope, receive, send)
            return
        self._guarded(exchange, _Arrived(exchange, receive))
        response = await exchange.outcome()
        if response is None:
            return
        accepted = exchange.headers.get("accept-encoding", "")
        response.body = compressed(bytes(response.body), accepted, response.headers)
        # By the ASGI specification, sending to a disconnected caller raises OSError.
        with contextlib.suppress(OSError):
            await response(scope, receive, send)

    async def _served(self, arrived: _Arrived, call: Call) -> Response:
        del call
        exchange, receive = arrived
        try:
            body = await body_of(receive, exchange.headers, self._max_body_bytes)
        except (BodyTooLarge, UnknownEncoding) as error:
            # HTTP has specific statuses for these errors.
            exchange.http_status = error.http_status
            raise
        except CallerLeft:
            exchange.leave()
            raise
        watch = asyncio.ensure_future(_leaves(receive, exchange))
        try:
            return await self._serve(RestCall(exchange.path_parameters, exchange.headers, body))
        finally:
            watch.cancel()


async def _leaves(receive: Receive, exchange: RestExchange) -> None:
    """End the call when its caller disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.leave()
