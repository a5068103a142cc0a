"""Answers queries by routing them: catalog, router, backend. Knows no protobuf and no transport."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import structlog

from frontend.backends.backend import Backend
from frontend.catalog import Catalog
from frontend.router import Router
from serving.access.identity import ANYBODY, Right
from serving.call import Call
from serving.errors import INTERNAL_MESSAGE, ServingError
from serving.model_id import ModelId, parse_model_id
from serving.prediction import Outcome, Prediction, Query
from serving.query_limits import QueryLimits

log = structlog.get_logger()

_PATIENCE_SECONDS: Final = 5.0


class RoutedPredictions:
    """The frontend's data plane.

    Args:
        catalog: knows the models.
        router: knows the engines.
        limits: what is taken in a query and a batch.
    """

    def __init__(self, catalog: Catalog, router: Router, limits: QueryLimits) -> None:
        self._catalog = catalog
        self._router = router
        self._limits = limits

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the model's answer.

        Raises:
            ServingError: why there is none.
        """
        backend = await self._backend_of(self._checked(query, call))
        return await backend.predict(query, call)

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> list[Outcome]:
        """Return the outcome of each query, in order. Queries of one engine go to it in one call.

        Raises:
            InvalidRequest: the batch is too large.
        """
        self._limits.check_batch(queries)
        outcomes: dict[int, Outcome] = {}
        members_of: dict[ModelId, list[int]] = defaultdict(list)
        for index, query in enumerate(queries):
            try:
                members_of[self._checked(query, call)].append(index)
            except ServingError as error:
                outcomes[index] = error
        groups: dict[Backend, list[int]] = defaultdict(list)
        routes = await asyncio.gather(*map(self._backend_of, members_of), return_exceptions=True)
        for members, route in zip(members_of.values(), routes, strict=True):
            if isinstance(route, ServingError):
                outcomes.update(dict.fromkeys(members, route))
            elif isinstance(route, BaseException):
                raise route
            else:
                groups[route].extend(members)
        results = await asyncio.gather(
            *(_outcomes(backend, [queries[i] for i in members], call) for backend, members in groups.items())
        )
        for members, result in zip(groups.values(), results, strict=True):
            outcomes.update(zip(members, result, strict=True))
        return [outcomes[index] for index in range(len(queries))]

    async def unload(self, model_id: str, call: Call) -> None:
        """Let the model's engine let go of what it holds in memory.

        Raises:
            ServingError: why it did not.
        """
        parsed = parse_model_id(model_id)
        call.identity.check(Right.MANAGE, parsed)
        await (await self._backend_of(parsed)).unload(parsed, call)

    async def wait_until_ready(self) -> None:
        """Return once every engine can answer; the last ones are not waited for beyond a while."""
        waits = {asyncio.ensure_future(backend.wait_until_ready()) for backend in self._router.backends}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            # An engine that is down fails its own models, and must not keep those of the others from their callers.
            ready, late = await asyncio.wait(waits, timeout=_PATIENCE_SECONDS)
            for wait in ready:
                wait.result()
            if late:
                log.warning("ready without all engines", missing=len(late))
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def close(self) -> None:
        """Close the catalog and every backend."""
        await self._catalog.close()
        await asyncio.gather(*(backend.close() for backend in self._router.backends))

    def _checked(self, query: Query, call: Call) -> ModelId:
        model_id = parse_model_id(query.model_id)
        if call.identity is not ANYBODY:
            call.identity.check(Right.PREDICT if query.explain is None else Right.EXPLAIN, model_id)
        self._limits.check(query)
        return model_id

    async def _backend_of(self, model_id: ModelId) -> Backend:
        return self._router.backend_for(await self._catalog.manifest(model_id))


async def _outcomes(backend: Backend, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
    try:
        return await backend.predict_batch(queries, call)
    except ServingError as error:
        return [error] * len(queries)
    except Exception:
        # A bug of one backend must not fail what others answer.
        log.exception("backend failed")
        return [ServingError(INTERNAL_MESSAGE)] * len(queries)
