"""Spans of traced calls: the wait for a batch, the batch, the call to an engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import grpc

from serving.call.call import Call
from serving.call.spans import Span

LEFT = "CANCELLED"
"""Error of a span whose work was abandoned before its end."""


class Member(Protocol):
    """A query of a batch, with the attributes that tracing needs."""

    call: Call
    span: Span | None
    """Span of the query's wait in the queue, then of its flight."""


def batch_of(members: Sequence[Member]) -> Span | None:
    """Return the span of a batch that is being sent; ``None`` if none of its members is traced.

    The batch belongs to the trace of its first traced member, and links to the calls of the others. In the trace of
    each of those, a span links to the batch.
    """
    traced = [(member, member.call.span) for member in members if member.call.span is not None]
    if not traced:
        return None
    (first, call), *others = traced
    batch = call.child("batch", links=[span for _, span in others])
    batch.set_attribute("intent.queries", len(members))
    _taken_from_queue(first, None)
    for member, span in others:
        _taken_from_queue(member, span.child("in flight", links=[batch]))
    return batch


def end_batch(batch: Span, members: Sequence[Member], error: str) -> None:
    """End the span of a batch, and those of its members' flights; ``error`` names why no member was answered."""
    batch.end(error)
    for member in members:
        if member.span is not None:
            member.span.end(error)


def _taken_from_queue(member: Member, flight: Span | None) -> None:
    if member.span is not None:
        member.span.end()
    member.span = flight


def with_span(
    send: Callable[..., Awaitable[Any]], span: Span, method: str, address: str
) -> Callable[..., Awaitable[Any]]:
    """Return ``send``, a gRPC stub's method, so that each of its calls is a child of ``span`` and propagates the trace.

    Args:
        send: takes a request, ``timeout`` and ``metadata``.
        span: span of the work that the call is made for.
        method: name of the method, as ``package.Service/Method``.
        address: address of the engine, in gRPC's notation.
    """

    async def send_with_span(request: Any, *, timeout: float, metadata: Sequence[tuple[str, str]]) -> Any:  # noqa: ASYNC109 - as the stub has it
        call = span.child(method, "client")
        call.set_attribute("rpc.system.name", "grpc")
        call.set_attribute("rpc.method", method)
        call.set_attribute("server.address", address)
        code = LEFT
        try:
            answer = await send(request, timeout=timeout, metadata=(*metadata, *call.metadata()))
            code = "OK"
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            raise
        finally:
            call.set_attribute("rpc.response.status_code", code)
            call.end("" if code == "OK" else code)
        return answer

    return send_with_span
