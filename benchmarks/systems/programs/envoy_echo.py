"""An ASGI application that answers each request with the same bytes, and does nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from benchmarks.workload import DOCUMENT
from serving.stubs import prediction_service_pb2 as pb
from serving.transport.asgi.wire import framed

_ANSWER: Final = framed(pb.PredictResponse(response=DOCUMENT).SerializeToString())


async def application(
    scope: Mapping[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Serve one request, or the life of the server."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    # The request is one short message, and comes in one piece.
    await receive()
    headers = [(b"content-type", b"application/grpc")]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
    await send({"type": "http.response.body", "body": _ANSWER, "more_body": False})
    await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")], "more_trailers": False})
