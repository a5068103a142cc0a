"""Answers of models, by way of catalog, router and backend.

Releases are unknown here: a query names a model, or a version of one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import structlog

from frontend.engines.backend import Backend
from frontend.routing.catalog import Catalog
from frontend.routing.router import Router
from serving.call.call import Call
from serving.domain.errors import INTERNAL_MESSAGE, ServingError
from serving.domain.model_id import ModelId
from serving.domain.prediction import Outcome, Prediction, Query

log = structlog.get_logger()


class ModelAnswers:
    """Sends queries to the engines of their models.

    Args:
        catalog: source of the manifests.
        router: holder of the backends.
    """

    def __init__(self, catalog: Catalog, router: Router) -> None:
        self._catalog = catalog
        self._router = router

    async def backend_of(self, model_id: ModelId) -> Backend:
        """Return the backend of a model. Raises ServingError."""
        return self._router.backend_for(await self._catalog.manifest(model_id))

    def backend_at_hand(self, model_id: ModelId) -> Backend | None:
        """Return the backend of a model; ``None`` if its manifest has to be awaited. Raises NoBackend."""
        manifest = self._catalog.manifest_at_hand(model_id)
        return None if manifest is None else self._router.backend_for(manifest)

    async def predict(self, model_id: ModelId, query: Query, call: Call) -> Prediction:
        """Return the answer of ``model_id`` to ``query``, which may name another model. Raises ServingError."""
        backend = await self.backend_of(model_id)
        return await backend.predict(_to(model_id, query), call)

    async def predict_batch(self, asked: Sequence[tuple[ModelId, Query]], call: Call) -> list[Outcome]:
        """Return the outcome of each query, in order. Queries for one engine are sent in one call."""
        members_of: dict[ModelId, list[int]] = defaultdict(list)
        for index, (model_id, _) in enumerate(asked):
            members_of[model_id].append(index)
        outcomes: dict[int, Outcome] = {}
        groups: dict[Backend, list[int]] = defaultdict(list)
        routes = await asyncio.gather(*map(self.backend_of, members_of), return_exceptions=True)
        for members, route in zip(members_of.values(), routes, strict=True):
            if isinstance(route, ServingError):
                outcomes.update(dict.fromkeys(members, route))
            elif isinstance(route, BaseException):
                raise route
            else:
                groups[route].extend(members)
        results = await asyncio.gather(
            *(_outcomes(backend, [_to(*asked[i]) for i in members], call) for backend, members in groups.items())
        )
        for members, result in zip(groups.values(), results, strict=True):
            outcomes.update(zip(members, result, strict=True))
        return [outcomes[index] for index in range(len(asked))]


def _to(model_id: ModelId, query: Query) -> Query:
    return query if query.model_id == model_id else query._replace(model_id=model_id)


async def _outcomes(backend: Backend, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
    try:
        return await backend.predict_batch(queries, call)
    except ServingError as error:
        return [error] * len(queries)
    except Exception:
        # A bug in one backend must not fail the queries that others answer.
        log.exception("backend failed")
        return [ServingError(INTERNAL_MESSAGE)] * len(queries)
