"""A real data plane before a fake engine, for tests of pipelines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from frontend.engines.submission import Done, Withdraw, answer_of
from frontend.pipelines.backend import PipelineBackend
from frontend.pipelines.counts import StepCounts
from frontend.predictions.predictions import RoutedPredictions
from frontend.quotas.quotas import Quotas
from frontend.routing.catalog import Catalog
from frontend.routing.router import Router
from serving.call.call import Call
from serving.call.identity import ALL_MODELS
from serving.domain.model_id import ModelId
from serving.domain.name_patterns import NamePatterns
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.query_limits import QueryLimits
from serving.volume.freshness.comparison import ThreadComparison
from serving.volume.model_store import ModelStore
from tests.fakes.backend import FakeBackend


class AtOnce(FakeBackend):
    """An engine that answers within the turn, or not at all where ``answer_or_none`` says ``None``."""

    def __init__(self, answer_or_none: Callable[[Query], Outcome | None]) -> None:
        super().__init__()
        self.answer_or_none = answer_or_none
        self.asked: list[Query] = []
        self.withdrawn: list[Query] = []

    def submit(self, query: Query, call: Call, done: Done) -> Withdraw | None:
        self.asked.append(query)
        self.calls.append(call)
        outcome = self.answer_or_none(query)
        if outcome is None:
            return lambda: self.withdrawn.append(query)
        done(outcome)
        return None

    async def predict(self, query: Query, call: Call) -> Prediction:
        return await answer_of(self, query, call)


@asynccontextmanager
async def plane(
    models: Path,
    engine: FakeBackend,
    *,
    most_queries: int = 64,
    trusted: Sequence[str] = (ALL_MODELS,),
    quotas: Quotas | None = None,
) -> AsyncIterator[RoutedPredictions]:
    """Yield the data plane of the models in a folder: ``engine`` has all but the pipelines."""
    catalog = Catalog(ModelStore(models), threads=2, freshness_seconds=60.0, comparison=ThreadComparison())
    pipelines = PipelineBackend(catalog, StepCounts(), NamePatterns(trusted))
    router = Router({"intent-classification": engine})
    router.answer_pipelines_with(pipelines)
    predictions = RoutedPredictions(catalog, router, QueryLimits(1000, most_queries), quotas=quotas)
    pipelines.ask_through(predictions)
    try:
        # With every manifest at hand, steps of a few milliseconds are not late because of a busy disk.
        for folder in models.iterdir():
            await catalog.manifest(ModelId(folder.name))
        yield predictions
    finally:
        await predictions.close()
