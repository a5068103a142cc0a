"""Backend for TorchServe 0.12 over gRPC, which registers models on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final

import grpc
import structlog
from grpc import StatusCode

from frontend.engines.backend import Manifests, Removed
from frontend.engines.forgetting import forget_each
from frontend.engines.groups import parts_of, predicted_in_groups
from frontend.engines.torchserve.answers import outcomes_in, prediction_in
from frontend.engines.torchserve.connection import Connection
from frontend.engines.torchserve.failures import error_of
from frontend.engines.torchserve.keys import Keys
from frontend.engines.torchserve.management import Management
from frontend.engines.torchserve.options import TorchServeOptions
from frontend.engines.torchserve.queries import Questions
from frontend.engines.torchserve.registration import Key
from frontend.engines.torchserve.registrations import Registrations
from serving.call.call import Call
from serving.call.closing import close_in_order
from serving.call.deadline import Deadline
from serving.call.tasks import Tasks
from serving.domain.errors import ServingError
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId, parse_model_id
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.residency import ModelResidency

log = structlog.get_logger()

_RETRY_SECONDS: Final = 0.5
_PING_SECONDS: Final = 5.0
_MOST_QUERIES: Final = 256
_MOST_CHARACTERS: Final = 1 << 17
_MOST_CALLS: Final = 64
_OF_DOCUMENTS: Final = frozenset({StatusCode.INVALID_ARGUMENT, StatusCode.INTERNAL})


class TorchServeBackend:
    """A :class:`~frontend.engines.backend.Backend` that asks one TorchServe.

    A model is registered from ``model-<model id>.mar`` in TorchServe's model store when it is first requested.
    :mod:`~frontend.engines.torchserve.registrations` describes the guarantee that an answer comes from the requested
    model.

    Args:
        target: address of the inference API, in gRPC's notation; one server.
        management_target: address of the management API of the same server.
        manifests: source of the models' names.
        options: settings for the use of TorchServe.
    """

    submit_batch: Final = None
    """Batches have to be awaited."""

    def __init__(
        self, target: str, management_target: str, manifests: Manifests, options: TorchServeOptions | None = None
    ) -> None:
        options = options or TorchServeOptions()
        self._manifests = manifests
        self._tasks = Tasks()
        keys = Keys(options.key_file, self._tasks)
        self._connection = Connection(target, management_target, keys, self._tasks, self._on_change)
        self._registrations = Registrations(Management(self._connection, options), options, self._tasks)
        self._questions = Questions(self._connection, self._registrations, self._tasks)

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the model's answer to one query.

        Raises:
            ModelUnusable: TorchServe has no archive of the model, or cannot start it.
            OutOfCapacity: the model's queue is full, or no further model can be registered.
            ServingError: any other reason that the query has no answer.
        """
        key, manifest = await self._model_of(query)
        answer = await self._questions.answer(key, [query], call.deadline)
        if not answer.of_documents:
            return prediction_in(answer.content, query, manifest)
        (outcome,) = outcomes_in(answer.content, [query], manifest)
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    async def predict_ready(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome | None]:
        """Return the outcome of each query, sent in one call; ``None`` for those to be sent alone.

        All queries are to be sent alone if the model is not known to be registered, or if its handler takes one
        document at a time or failed on the batch. Queries that ask for an explanation are always sent alone, because
        their answers are long.

        REQUIRES: :meth:`group_of` is the same for all queries.
        """
        key, manifest = await self._model_of(queries[0])
        known = self._registrations.known(key)
        together = [query for query in queries if query.explain is None]
        if together and known is not None and known.takes_documents:
            try:
                answer = await self._questions.answer(key, together, call.deadline)
                if answer.of_documents:
                    outcomes = iter(outcomes_in(answer.content, together, manifest))
                    return [next(outcomes) if query.explain is None else None for query in queries]
            except ServingError as error:
                if len(queries) == 1 or error.code not in _OF_DOCUMENTS:
                    raise
        return [None] * len(queries)

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        """Return the outcome of each query, in order. Models are queried concurrently, each with its own queries."""
        room = asyncio.Semaphore(_MOST_CALLS)
        return await predicted_in_groups(queries, self.group_of, lambda part: self._of_one_model(part, call, room))

    def group_of(self, query: Query) -> str:
        """Return the model id, as the key of queries that may go in one batch."""
        return query.model_id

    async def load(self, model_id: ModelId, call: Call) -> ModelResidency | None:
        """Ensure that a model is registered. Return ``None``, as TorchServe does not report what its workers hold.

        Raises:
            ServingError: TorchServe cannot serve the model.
        """
        key = Key.of(model_id, await self._manifests.manifest(model_id))
        registration, _ = await self._registrations.enter(key, call.deadline)
        self._registrations.leave(registration)
        return None

    async def residency(self, model_id: ModelId, call: Call) -> Sequence[ModelResidency]:
        """Return an empty sequence: others may have registered the model, and what its workers hold is not reported."""
        del model_id, call
        return ()

    async def unload(self, model_id: ModelId, call: Call) -> None:
        """Unregister a model once its pending queries are answered; the next query registers it again.

        Raises:
            ServingError: TorchServe did not unregister the model.
        """
        key = Key.of(model_id, await self._manifests.manifest(model_id))
        await self._registrations.unload(key, call.deadline)

    async def forget(self, models: Sequence[Removed], call: Call) -> None:
        """Unregister removed models; without a manifest, only the registrations of this frontend.

        Raises:
            ServingError: the first failure.
        """

        def unregister(model: Removed) -> Awaitable[None]:
            model_id, manifest = model
            key = Key(model_id, "") if manifest is None else Key.of(model_id, manifest)
            return self._registrations.unload(key, call.deadline)

        await forget_each(models, unregister)

    async def wait_until_ready(self) -> None:
        """Return once TorchServe answers."""
        while True:
            if await self._answers():
                return
            await asyncio.sleep(_RETRY_SECONDS)

    async def close(self) -> None:
        """Cancel work in progress and close the connections. Registered models stay registered."""
        await close_in_order(self._tasks.close, self._connection.close)

    async def _answers(self) -> bool:
        try:
            await self._connection.ping(Deadline.after(_PING_SECONDS))
        except grpc.aio.AioRpcError as error:
            log.info("TorchServe not ready", reason=str(error_of(error)))
        except ServingError as error:
            log.info("TorchServe not ready", reason=str(error))
        else:
            return True
        return False

    def _on_change(self) -> None:
        self._registrations.doubt_all()

    async def _model_of(self, query: Query) -> tuple[Key, Manifest]:
        model_id = parse_model_id(query.model_id)
        manifest = await self._manifests.manifest(model_id)
        return Key.of(model_id, manifest), manifest

    async def _of_one_model(self, queries: Sequence[Query], call: Call, room: asyncio.Semaphore) -> Sequence[Outcome]:
        outcomes: list[Outcome | None] = []
        try:
            async with room:
                key, _ = await self._model_of(queries[0])
                # Whether the handler takes many documents at once is known only while the model is registered.
                registration, _ = await self._registrations.enter(key, call.deadline)
                self._registrations.leave(registration)
                for part in parts_of(queries, most=_MOST_QUERIES, most_characters=_MOST_CHARACTERS):
                    outcomes.extend(await self.predict_ready(part, call))
        except ServingError as error:
            outcomes.extend([error] * (len(queries) - len(outcomes)))
        answers = await asyncio.gather(
            *(
                self._alone(query, call, room)
                for query, outcome in zip(queries, outcomes, strict=True)
                if outcome is None
            )
        )
        later = iter(answers)
        return [next(later) if outcome is None else outcome for outcome in outcomes]

    async def _alone(self, query: Query, call: Call, room: asyncio.Semaphore) -> Outcome:
        async with room:
            try:
                return await self.predict(query, call)
            except ServingError as error:
                return error
