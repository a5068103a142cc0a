"""One path of the REST form: each request is a call behind the boundary, as those of gRPC are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, TypeAlias

import grpc
from grpc import StatusCode
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope, Send

from frontend.open_inference.rest.bodies import BodyTooLarge, UnknownEncoding, body_of, compressed
from frontend.open_inference.rest.calls import RestCall
from frontend.open_inference.rest.refusals import headers_of, http_status_of, refusal
from grpc_http2.alarms import alarms_of
from grpc_http2.wire import WireError, seconds_of_timeout
from serving.access.identity import Asked
from serving.call import REQUEST_ID_KEY, RETRY_AFTER_KEY
from serving.transport.asgi.context import CallContext
from serving.transport.asgi.watch import CallerLeft, CallWatch, Ended, Receive
from serving.transport.boundary import Boundary

Serve: TypeAlias = Callable[[RestCall], Awaitable[Response]]

# KServe and Triton have none; gateways of gRPC take its own.
_TIMEOUT_HEADER: Final = b"grpc-timeout"


class Limits(NamedTuple):
    """What is taken of a request."""

    body_bytes: int
    """Of the body, compressed or not."""
    seconds: float
    """Given to calls that come without a deadline."""


class _RestContext(CallContext):
    """The context of a call, with a status that only HTTP has."""

    http_status: int | None = None


class _Arrived(NamedTuple):
    """A request whose body has not been read."""

    scope: Scope
    headers: Headers
    receive: Receive


class Endpoint:
    """An ASGI application for one path and method.

    Args:
        name: of the call, in log lines.
        right: what it asks of its callers.
        serve: answers.
        boundary: what the call stands behind.
        limits: what is taken of a request.
    """

    def __init__(self, name: str, right: Asked, serve: Serve, boundary: Boundary, limits: Limits) -> None:
        self._serve = serve
        self._limits = limits
        self._guarded = boundary.guarded(name, self._served, right)

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Serve one request."""
        watch = CallWatch(alarms_of(asyncio.get_running_loop()))
        context = _RestContext(scope, send, watch)
        headers = Headers(scope=scope)
        try:
            seconds = self._limits.seconds
            timeout = context.metadatum(_TIMEOUT_HEADER)
            if timeout is not None:
                seconds = seconds_of_timeout(timeout.encode())
                context.set_deadline(seconds)
            watch.expire_after(seconds)
            response = await self._guarded(_Arrived(scope, headers, receive), context)
        except grpc.aio.AbortError:
            response = refusal(context.http_status or http_status_of(context.status_code), context.status_details)
        except WireError as error:
            response = refusal(http_status_of(StatusCode.INVALID_ARGUMENT), str(error))
        except asyncio.CancelledError:
            if watch.reason is None:
                raise
            watch.forgive()
            if watch.reason is Ended.CALLER_LEFT:
                return
            response = refusal(http_status_of(StatusCode.DEADLINE_EXCEEDED), "the deadline of the call has passed")
        finally:
            watch.close()
            context.end()
        _finish(response, headers, context)
        # By the ASGI specification, what is sent to a caller who has left.
        with contextlib.suppress(OSError):
            await response(scope, receive, send)

    async def _served(self, arrived: _Arrived, context: _RestContext) -> Response:
        try:
            body = await body_of(arrived.receive, arrived.headers, self._limits.body_bytes)
        except (BodyTooLarge, UnknownEncoding) as error:
            # HTTP has statuses of its own for these.
            context.http_status = error.http_status
            raise
        except CallerLeft:
            context.watch.end_call(Ended.CALLER_LEFT)
            # Here it ends.
            await asyncio.sleep(0)
            raise
        context.watch.listen(arrived.receive)
        return await self._serve(RestCall(arrived.scope["path_params"], arrived.headers, body, context))


def _finish(response: Response, asked: Headers, context: CallContext) -> None:
    """Put our mark on the answer, and compress it where the caller takes that."""
    trailers = {key: str(value) for key, value in context.trailers}
    if REQUEST_ID_KEY in trailers:
        response.headers[REQUEST_ID_KEY] = trailers[REQUEST_ID_KEY]
    response.headers.update(headers_of(context.status_code, trailers.get(RETRY_AFTER_KEY)))
    response.body = compressed(bytes(response.body), asked.get("accept-encoding", ""), response.headers)
