"""grpc.reflection, for those who are known: it tells what a service can be asked."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

from grpc_reflection.v1alpha import reflection

from serving.domain.errors import ServingError
from serving.transport.exchange import ContextExchange
from serving.transport.guards import Access


class GuardedReflection:
    """The standard servicer behind ``access``. It streams, so it stays outside of the boundary and asks for itself.

    Args:
        names: of the services it tells of.
        access: knows callers.
    """

    def __init__(self, names: Iterable[str], access: Access) -> None:
        # The published types say otherwise of what it returns.
        self._servicer: Any = reflection.aio.ReflectionServicer(names)
        self._access = access

    async def ServerReflectionInfo(  # noqa: N802 - the protocol names it
        self, request_iterator: AsyncIterable[Any], context: Any
    ) -> AsyncIterator[Any]:
        """Answer each question, if the caller is anybody that is known."""
        try:
            self._access.identify(ContextExchange(context))
        except ServingError as error:
            await context.abort(error.code, str(error))
        async for response in self._servicer.ServerReflectionInfo(request_iterator, context):
            yield response
