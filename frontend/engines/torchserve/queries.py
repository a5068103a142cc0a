"""Queries registered models, and verifies that the answer is from the right model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, NamedTuple

import grpc

from frontend.engines.torchserve.answers import DOCUMENT_INPUT, DOCUMENTS_INPUT, documents_input
from frontend.engines.torchserve.connection import Connection
from frontend.engines.torchserve.failures import error_of_prediction, is_of_torchserve
from frontend.engines.torchserve.registration import Key, Registered, Registration
from frontend.engines.torchserve.registrations import Registrations
from serving.call.deadline import Deadline
from serving.call.tasks import Tasks
from serving.domain.errors import Unavailable
from serving.domain.prediction import Query

# TorchServe never answers a query whose model is unregistered in the meantime, by whatever client.
_LOOK_AFTER_SECONDS: Final = 1.0


class Answer(NamedTuple):
    """The answer of a handler."""

    content: bytes
    of_documents: bool
    """Whether the handler was given documents, rather than one document."""


class Questions:
    """Queries models.

    Args:
        connection: calls TorchServe.
        registrations: the registrations of the models at TorchServe.
        tasks: owns the calls.
    """

    def __init__(self, connection: Connection, registrations: Registrations, tasks: Tasks) -> None:
        self._connection = connection
        self._registrations = registrations
        self._tasks = tasks

    async def answer(self, key: Key, queries: Sequence[Query], deadline: Deadline) -> Answer:
        """Return the answer of the model's handler.

        If the model is not registered as it was known to be, it is looked up, or registered, and queried once more. A
        handler that takes one document at a time is given the first.

        Raises:
            ServingError: as :meth:`~frontend.engines.torchserve.registrations.Registrations.enter` raises, and as
                :func:`~frontend.engines.torchserve.failures.error_of_prediction` returns.
        """
        answer = await self._attempt(key, queries, deadline) or await self._attempt(key, queries, deadline)
        if answer is None:
            raise Unavailable("the model's registration at TorchServe keeps changing; try again")
        return answer

    async def _attempt(self, key: Key, queries: Sequence[Query], deadline: Deadline) -> Answer | None:
        """Return the answer; ``None`` if the model was not, or may not have been, registered as it was known to be."""
        registration, registered = await self._registrations.enter(key, deadline)
        changes = self._connection.changes
        try:
            content = await self._answer(registration, registered, queries, deadline)
            if content is not None and changes == self._connection.changes:
                return Answer(content, registered.takes_documents)
            self._registrations.doubt(registration, registered)
            return None
        finally:
            self._registrations.leave(registration)

    async def _answer(
        self, registration: Registration, registered: Registered, queries: Sequence[Query], deadline: Deadline
    ) -> bytes | None:
        """Return the answer; ``None`` if the registration is gone."""
        call = self._connection.predict(registered.name, registered.version, _inputs(registered, queries), deadline)
        prediction = self._tasks.start(_ended(call))
        try:
            while not prediction.done():
                await asyncio.wait({prediction}, timeout=_LOOK_AFTER_SECONDS)
                if not prediction.done() and not await registration.is_still(registered, deadline):
                    return None
            content = prediction.result()
        finally:
            prediction.cancel()
        if isinstance(content, grpc.aio.AioRpcError):
            # TorchServe ends the worker of a model that is unregistered.
            if is_of_torchserve(content) and not await registration.is_still(registered, deadline):
                return None
            raise error_of_prediction(content) from content
        return content if await registration.is_still(registered, deadline) else None


async def _ended(call: Awaitable[bytes]) -> bytes | grpc.aio.AioRpcError:
    """Return the answer of a call, or the error with which it failed; the caller that asked for it may have left."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return error


def _inputs(registered: Registered, queries: Sequence[Query]) -> Mapping[str, bytes]:
    if registered.takes_documents:
        return {DOCUMENTS_INPUT: documents_input(queries)}
    return {DOCUMENT_INPUT: queries[0].document.encode()}
