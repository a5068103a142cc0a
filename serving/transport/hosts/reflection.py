"""grpc.reflection for known callers, which describes the methods of a service."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

from grpc_reflection.v1alpha import reflection

from serving.domain.errors import ServingError
from serving.transport.exchange import ContextExchange
from serving.transport.guards import Access


class GuardedReflection:
    """The standard servicer behind ``access``.

    The servicer streams, so it stays outside the boundary and identifies callers itself.

    Args:
        names: names of the services to describe.
        access: identifies callers.
    """

    def __init__(self, names: Iterable[str], access: Access) -> None:
        # The published types declare another return type.
        self._servicer: Any = reflection.aio.ReflectionServicer(names)
        self._access = access

    async def ServerReflectionInfo(self, request_iterator: AsyncIterable[Any], context: Any) -> AsyncIterator[Any]:
        """Answer each request if the caller is known."""
        try:
            self._access.identify(ContextExchange(context))
        except ServingError as error:
            await context.abort(error.code, str(error))
        async for response in self._servicer.ServerReflectionInfo(request_iterator, context):
            yield response
