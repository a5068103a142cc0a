"""Backend for the Open Inference Protocol: one server, or several that each serve a share of the models.

The manifest gives the name of the model at the server, and the names of its tensors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Final

import grpc
import structlog

from frontend.engines.backend import Manifests, Removed
from frontend.engines.forgetting import forget_each
from frontend.engines.groups import parts_of, predicted_in_groups
from frontend.engines.open_inference.answer import outcomes_of
from frontend.engines.open_inference.refusals import may_be_of_one
from frontend.engines.open_inference.request import MOST_CHARACTERS, most_documents, request_of
from frontend.engines.open_inference.server import OpenInferenceServer
from frontend.engines.replicas import LookUp, look_up
from serving.call.call import Call
from serving.domain.errors import RemoteError, ServingError, copy_for_raise
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId, parse_model_id
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.residency import ModelResidency

log = structlog.get_logger()

_RETRY_SECONDS: Final = 0.5
# Maximum number of calls in flight for one batch: the queue of a third-party engine is not ours to fill.
_MOST_CALLS: Final = 16


class OpenInferenceBackend:
    """A :class:`~frontend.engines.backend.Backend` that asks a server of the Open Inference Protocol, or its replicas.

    Args:
        target: address of the server in gRPC's notation: ``host:port``, ``dns:///name:port``, ``ipv4:address:port,…``.
        manifests: source of each model's name and tensors at the server.
        partitions: number of partitions that the models are spread over; the models of one go to one replica.
        look_up: resolves names.
    """

    submit_batch: Final = None
    """Batches have to be awaited."""

    def __init__(self, target: str, *, manifests: Manifests, partitions: int = 1, look_up: LookUp = look_up) -> None:
        self._manifests = manifests
        self._server = OpenInferenceServer(target, partitions, look_up)

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the model's answer to one query.

        Raises:
            ModelUnusable: the engine's model, or its answer, does not match the manifest.
            NonFiniteLogits: the answer is not a finite number.
            ServingError: the engine refused the call; the message is ours.
        """
        outcome = (await self._infer(await self._manifest_of(query), [query], call))[0]
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        """Return the outcome of each query, in order. Each model gets its own, in as few calls as it allows."""
        slots = asyncio.Semaphore(_MOST_CALLS)
        return await predicted_in_groups(queries, self.group_of, lambda part: self._answers_of(part, call, slots))

    async def predict_ready(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome | None]:
        """Return the outcome of each query, ``None`` for those to be sent alone.

        Queries are sent alone if the engine refused their batch, or if the model takes one document at a time.

        REQUIRES: :meth:`group_of` is the same for all queries.
        """
        manifest = await self._manifest_of(queries[0])
        most = most_documents(manifest)
        if most == 1 < len(queries):
            return [None] * len(queries)
        return await self._in_parts(manifest, queries, most, call, asyncio.Semaphore(_MOST_CALLS))

    def group_of(self, query: Query) -> str:
        """Return the model id as the key of queries that may go in one batch: a request has one model."""
        return query.model_id

    async def load(self, model_id: ModelId, call: Call) -> ModelResidency | None:
        """Return ``None`` at once: the engine loads models by itself, and its answers show whether it could."""
        del model_id, call
        return None

    async def residency(self, model_id: ModelId, call: Call) -> Sequence[ModelResidency]:
        """Return an empty sequence: the engine does not report which models it holds."""
        del model_id, call
        return ()

    async def unload(self, model_id: ModelId, call: Call) -> None:
        """Refuse, with RemoteError: the engine loads and unloads models by itself."""
        del model_id, call
        raise RemoteError("the model's engine loads and unloads models by itself", grpc.StatusCode.UNIMPLEMENTED)

    async def forget(self, models: Sequence[Removed], call: Call) -> None:
        """Refuse, as :meth:`unload` does."""
        await forget_each(models, lambda model: self.unload(model.model_id, call))

    async def wait_until_ready(self) -> None:
        """Return once the engine reports that it is ready."""
        while True:
            if await self._server.becomes_ready():
                return
            # A server that is loading its models answers at once, so pause before the next attempt.
            await asyncio.sleep(_RETRY_SECONDS)

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()

    async def _answers_of(self, queries: Sequence[Query], call: Call, slots: asyncio.Semaphore) -> Sequence[Outcome]:
        """Return the outcome of each query of one model."""
        manifest = await self._manifest_of(queries[0])
        outcomes = await self._in_parts(manifest, queries, most_documents(manifest), call, slots)
        later = [query for query, outcome in zip(queries, outcomes, strict=True) if outcome is None]
        alone = iter(await self._in_parts(manifest, later, 1, call, slots))
        every = [next(alone) if outcome is None else outcome for outcome in outcomes]
        return [outcome for outcome in every if outcome is not None]

    async def _in_parts(
        self, manifest: Manifest, queries: Sequence[Query], most: int, call: Call, slots: asyncio.Semaphore
    ) -> Sequence[Outcome | None]:
        parts = list(parts_of(queries, most=most, most_characters=MOST_CHARACTERS))
        if len(parts) == 1:
            return await self._part(manifest, parts[0], call, slots)
        answers = await asyncio.gather(*(self._part(manifest, part, call, slots) for part in parts))
        return list(chain(*answers))

    async def _part(
        self, manifest: Manifest, queries: Sequence[Query], call: Call, slots: asyncio.Semaphore
    ) -> Sequence[Outcome | None]:
        """Send the queries in one request; return the outcome of each, ``None`` for all if they may succeed alone."""
        try:
            async with slots:
                return await self._infer(manifest, queries, call)
        except ServingError as error:
            if len(queries) == 1 or not may_be_of_one(error):
                return _each_gets(error, queries)
            log.warning(
                "batch refused; sending its queries one by one", model=queries[0].model_id, reason=_reason(error)
            )
            return [None] * len(queries)

    async def _infer(self, manifest: Manifest, queries: Sequence[Query], call: Call) -> list[Outcome]:
        request = request_of(manifest, queries, call.request_id)
        response = await self._server.infer(request, queries[0].model_id, manifest.open_inference, call)
        return outcomes_of(response, manifest, queries)

    async def _manifest_of(self, query: Query) -> Manifest:
        return await self._manifests.manifest(parse_model_id(query.model_id))


def _each_gets(error: ServingError, queries: Sequence[Query]) -> list[ServingError]:
    return [copy_for_raise(error) for _ in queries]


def _reason(error: ServingError) -> str:
    """Return the reason for a refused batch, for operators: the engine's message if it gave one."""
    cause = error.__cause__
    return (cause.details() if isinstance(cause, grpc.aio.AioRpcError) else None) or str(error)
