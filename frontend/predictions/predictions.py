"""Answers to queries, routed by release, catalog, router and backend. Independent of protobuf and transport."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import structlog

from frontend.engines.backend import Backend
from frontend.engines.submission import Done, Withdraw, answer_of
from frontend.quotas.ledger import Tenant
from frontend.quotas.quotas import Quotas
from frontend.releases.released import ReleasedAnswers, RoutedQuery
from frontend.releases.rollouts import Rollout, Route
from frontend.routing.answers import ModelAnswers
from frontend.routing.catalog import Catalog
from frontend.routing.router import Router
from grpc_http2.turn import Turn
from serving.call.call import Call, enter_call
from serving.call.closing import close_in_order
from serving.call.identity import ANYBODY, Right
from serving.call.tasks import Tasks
from serving.domain.errors import ServingError
from serving.domain.model_id import ModelId, parse_model_id
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.query_limits import QueryLimits

log = structlog.get_logger()

PATIENCE_SECONDS: Final = 5.0
"""Time for which engines that are down are awaited once another engine is ready, in seconds."""


class RoutedPredictions:
    """Data plane of the frontend.

    A query is for a model, for a name that has a release, or for one version or label of a name.

    Args:
        catalog: manifests of the models.
        router: selects engines.
        limits: limits of a query and a batch.
        released: knows and answers names that have a release; ``None``: no name has one.
        quotas: quotas of tenants; ``None``: unlimited.
        patience_seconds: time for which engines that are down are awaited once another engine is ready.
    """

    def __init__(
        self,
        catalog: Catalog,
        router: Router,
        limits: QueryLimits,
        released: ReleasedAnswers | None = None,
        quotas: Quotas | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._patience_seconds = patience_seconds
        self._catalog = catalog
        self._router = router
        self._limits = limits
        self._released = released
        self._quotas = quotas
        self._answers = ModelAnswers(catalog, router)
        self._tasks = Tasks()
        self._turn = Turn.of_running_loop()
        self._at_hand: dict[str, tuple[ModelId, Backend]] = {}
        """Models queried in this turn and their engines, by the text that callers wrote."""

    def submit(self, query: Query, call: Call, done: Done) -> Withdraw | None:
        """Submit the query; ``done`` is called with the answer, or with the ServingError that states the reason."""
        quotas = self._quotas
        tenant: Tenant | None = None
        try:
            model_id, backend = self._at_hand.get(query.model_id) or self._route_at_hand(query.model_id)
            self._check(query, model_id, call)
            if call.identity is not ANYBODY:
                query = query._replace(caller=call.identity.caller)
            if quotas is not None and call.is_counted:
                tenant = quotas.enter(call.identity, model_id, 1, is_inner=call.is_inner)
        except ServingError as error:
            done(error)
            return None
        leaving: _Leaving | None = None
        if quotas is not None and tenant is not None:
            leaving = _Leaving(quotas, tenant, done)
            done = leaving.done
        if backend is None:
            behind: Withdraw | None = self._predict_later(model_id, query, call, done)
        else:
            behind = backend.submit(query, call, done)
        if leaving is None:
            return behind
        leaving.behind = behind
        return leaving.withdraw

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the model's answer.

        Raises:
            ServingError: the model gives no answer.
        """
        return await answer_of(self, query, call)

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> list[Outcome]:
        """Return the outcome of each query, in order. Queries for one engine share a call; canaries get a separate one.

        Raises:
            InvalidRequest: the batch is too large.
            QuotaExceeded: the caller exceeds its quota.
        """
        self._limits.check_batch(queries)
        outcomes: dict[int, Outcome] = {}
        model_ids: dict[int, ModelId] = {}
        for index, query in enumerate(queries):
            try:
                model_id = parse_model_id(query.model_id)
                self._check(query, model_id, call)
                model_ids[index] = model_id
            except ServingError as error:
                outcomes[index] = error
        if call.identity is not ANYBODY:
            queries = [query._replace(caller=call.identity.caller) for query in queries]
        entered: Sequence[Tenant] = ()
        if self._quotas is not None and call.is_counted:
            entered, refused = self._quotas.enter_batch(call.identity, model_ids)
            for index, refusal in refused.items():
                outcomes[index] = refusal
                del model_ids[index]
        try:
            outcomes.update(await self._outcomes_of(queries, model_ids, call))
        finally:
            if self._quotas is not None:
                for tenant in entered:
                    self._quotas.leave(tenant)
        return [outcomes[index] for index in range(len(queries))]

    async def _outcomes_of(
        self, queries: Sequence[Query], model_ids: Mapping[int, ModelId], call: Call
    ) -> Mapping[int, Outcome]:
        """Return the outcome of each query in ``model_ids``, by its index in the batch."""
        outcomes: dict[int, Outcome] = {}
        routes = await self._routes_of(set(model_ids.values()))
        routed: dict[int, RoutedQuery] = {}
        for index, model_id in model_ids.items():
            route = routes[model_id]
            if isinstance(route, ServingError):
                outcomes[index] = route
            else:
                routed[index] = RoutedQuery.of(route, queries[index])
        outcomes.update(zip(routed, await self._answered(list(routed.values()), call), strict=True))
        return outcomes

    async def load(self, model_id: str, call: Call) -> None:
        """Load the model into memory; for a name with a release, all live versions.

        Raises:
            ServingError: a model cannot be loaded.
        """
        parsed = parse_model_id(model_id)
        call.identity.check(Right.MANAGE, parsed)
        for each in await self.live(parsed):
            backend = await self._answers.backend_of(each)
            if await backend.load(each, call) is None:
                # An engine that does not report its residency is sent a query instead.
                await backend.predict(Query(each, "", caller=call.identity.name), call)

    async def unload(self, model_id: str, call: Call) -> None:
        """Unload the model from memory; for a name with a release, all live versions.

        Raises:
            ServingError: a model cannot be unloaded.
        """
        parsed = parse_model_id(model_id)
        call.identity.check(Right.MANAGE, parsed)
        for each in await self.live(parsed):
            await (await self._answers.backend_of(each)).unload(each, call)

    async def route(self, model_id: ModelId) -> Route:
        """Return the target of a query for ``model_id``: a model, or the rollout of the name.

        Raises:
            ModelNotFound: the name does not exist.
            ServingError: the target cannot be determined.
        """
        released = self._released
        return model_id if released is None or released.has_none(model_id) else await released.route(model_id)

    async def live(self, model_id: ModelId) -> Sequence[ModelId]:
        """Return the models that queries for ``model_id`` may reach; for a name with a release, all live versions.

        Raises:
            ServingError: as :meth:`route` does.
        """
        route = await self.route(model_id)
        return route.live() if isinstance(route, Rollout) else (route,)

    async def wait_until_ready(self) -> None:
        """Return once every engine can answer; after the first one, wait only a limited time for the others."""
        waits = {asyncio.ensure_future(backend.wait_until_ready()) for backend in self._router.backends}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            # If an engine is down, only its own models fail; those of other engines must remain available.
            ready, late = await asyncio.wait(waits, timeout=self._patience_seconds)
            for wait in ready:
                wait.result()
            if late:
                log.warning("ready without all engines", missing=len(late))
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def close(self) -> None:
        """Close the catalog and every backend, and cancel the work in the background."""
        released = () if self._released is None else (self._released.close,)
        await close_in_order(self._tasks.close, *released, self._catalog.close, self._router.close)

    def _route_at_hand(self, text: str) -> tuple[ModelId, Backend | None]:
        """Return the model that ``text`` names, and its engine if that can be determined without waiting.

        Most models are known to have no release, and most manifests are at hand. The result holds for the rest of the
        turn, because queries for one model arrive together. Raises InvalidModelId.
        """
        model_id = parse_model_id(text)
        released = self._released
        if released is not None and not released.has_none(model_id):
            return model_id, None
        try:
            backend = self._answers.backend_at_hand(model_id)
        except ServingError:
            # The path that waits reports the error, after the caller's rights are checked.
            return model_id, None
        if backend is not None:
            if not self._at_hand:
                self._turn.at_end(self._at_hand.clear)
            self._at_hand[text] = model_id, backend
        return model_id, backend

    def _predict_later(self, model_id: ModelId, query: Query, call: Call, done: Done) -> Withdraw:
        """Answer the query in a task, which first looks up the release or the engine."""
        return self._tasks.start(self._look_up_and_predict(model_id, query, call, done)).cancel

    async def _look_up_and_predict(self, model_id: ModelId, query: Query, call: Call, done: Done) -> None:
        enter_call(call)
        outcome: Prediction | Exception
        try:
            outcome = await self._looked_up(model_id, query, call)
        except Exception as error:  # noqa: BLE001 - the outcome, whatever it is
            outcome = error
        done(outcome)

    async def _looked_up(self, model_id: ModelId, query: Query, call: Call) -> Prediction:
        released = self._released
        if released is None or released.has_none(model_id):
            backend = await self._answers.backend_of(model_id)
            return await backend.predict(query, call)
        return await released.predict(await released.route(model_id), query, call)

    def _check(self, query: Query, model_id: ModelId, call: Call) -> None:
        """Check that the caller may send this query. Raises ServingError."""
        if call.identity is not ANYBODY:
            call.identity.check(Right.PREDICT if query.explain is None else Right.EXPLAIN, model_id)
        self._limits.check(query)

    async def _routes_of(self, model_ids: Collection[ModelId]) -> Mapping[ModelId, Route | ServingError]:
        released = self._released
        if released is None:
            return {model_id: model_id for model_id in model_ids}
        routes: dict[ModelId, Route | ServingError] = {}
        unknown: list[ModelId] = []
        for model_id in model_ids:
            if released.has_none(model_id):
                routes[model_id] = model_id
            else:
                unknown.append(model_id)
        found = await asyncio.gather(*map(released.route, unknown), return_exceptions=True)
        for model_id, route in zip(unknown, found, strict=True):
            if isinstance(route, BaseException) and not isinstance(route, ServingError):
                raise route
            routes[model_id] = route
        return routes

    async def _answered(self, routed: Sequence[RoutedQuery], call: Call) -> Sequence[Outcome]:
        if self._released is None or all(each.rollout is None for each in routed):
            return await self._answers.predict_batch([(each.model_id, each.query) for each in routed], call)
        return await self._released.predict_batch(routed, call)


class _Leaving:
    """A query of a tenant, counted until its outcome is reported or it is withdrawn."""

    __slots__ = ("_done", "_quotas", "_tenant", "behind")

    def __init__(self, quotas: Quotas, tenant: Tenant, done: Done) -> None:
        self._quotas = quotas
        self._tenant: Tenant | None = tenant
        self._done = done
        self.behind: Withdraw | None = None

    def done(self, outcome: Prediction | Exception) -> None:
        """Report the outcome."""
        self._leave()
        self._done(outcome)

    def withdraw(self) -> None:
        """Withdraw the query."""
        self._leave()
        if self.behind is not None:
            self.behind()

    def _leave(self) -> None:
        tenant, self._tenant = self._tenant, None
        if tenant is not None:
            self._quotas.leave(tenant)
