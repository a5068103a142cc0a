"""Builders for tests of releases: names with versions, and a real data plane before a fake engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from frontend.predictions.predictions import RoutedPredictions
from frontend.releases.bounds import BOUNDS, ReleaseBounds
from frontend.releases.canary_guard import WriteRelease
from frontend.releases.service import Releases, build_releases
from frontend.releases.trials import TrialCounts
from frontend.routing.catalog import Catalog
from frontend.routing.router import Router
from serving.domain.model_id import ModelId
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.query_limits import QueryLimits
from serving.domain.releases.release import RELEASE_FILE, Release
from serving.volume.freshness.comparison import ThreadComparison
from serving.volume.model_store import ModelStore
from tests.builders import PATIENCE, a_call, a_prediction, publish
from tests.fakes.backend import FakeBackend

NAME: Final = ModelId("intent")
NEVER: Final = 3600.0


def publish_versions(root: Path, *versions: str, name: str = NAME) -> None:
    """Put a model folder for each version below the folder of ``name``."""
    for version in versions:
        publish(root, f"{name}/{version}")


def write_release(root: Path, release: Release, name: str = NAME) -> Release:
    """Replace the release, as another process would; return the new release."""
    staged = root / name / ".staged"
    staged.write_text(release.to_json())
    staged.replace(root / name / RELEASE_FILE)
    return release


def by_version(**labels: str) -> Callable[[Query], Outcome]:
    """Return a function that answers with the label of the queried version, or with the document if it has no label."""

    def answer(query: Query) -> Prediction:
        return a_prediction(query, labels.get(query.model_id.partition("@")[2], ""))

    return answer


@dataclass
class Bench:
    """A data plane and its engine."""

    root: Path
    engine: FakeBackend
    predictions: RoutedPredictions
    releases: Releases

    async def ask(self, model_id: str = NAME, document: str = "x", seconds: float = PATIENCE, **fields: Any) -> str:
        """Return the id of the model that answers."""
        answer = await self.predictions.predict(Query(model_id, document, **fields), a_call(seconds))
        return answer.model_id

    async def ask_all(self, *model_ids: str, **fields: Any) -> list[str]:
        """Return the id of the model that answers, or the name of the error, for each query of a batch."""
        queries = [Query(model_id, "x", **fields) for model_id in model_ids]
        outcomes = await self.predictions.predict_batch(queries, a_call())
        return [each.model_id if isinstance(each, Prediction) else type(each).__name__ for each in outcomes]

    def counts(self, role: str, name: ModelId = NAME) -> TrialCounts:
        """Return the counts of the version in ``role``."""
        (found,) = (counts for counts in self.releases.trials.of(name) if counts.role == role)
        return found

    def asked(self) -> list[str]:
        """Return the ids of the models that the engine was queried for, in order."""
        return [query.model_id for batch in self.engine.batches for query in batch]


@asynccontextmanager
async def bench(
    root: Path,
    engine: FakeBackend | None = None,
    *,
    freshness_seconds: float = 0.0,
    write: WriteRelease | None = None,
    most_batch: int = 4096,
    bounds: ReleaseBounds = BOUNDS,
) -> AsyncIterator[Bench]:
    """Yield a data plane over the models below ``root``."""
    engine = engine or FakeBackend()
    catalog = Catalog(ModelStore(root), threads=2, freshness_seconds=NEVER, comparison=ThreadComparison())
    router = Router({"intent-classification": engine})
    releases = build_releases(
        root,
        catalog,
        router,
        threads=1,
        freshness_seconds=freshness_seconds,
        release_freshness_seconds=freshness_seconds,
        comparison=ThreadComparison(),
        metrics_models=10,
        write=write,
        bounds=bounds,
    )
    predictions = RoutedPredictions(catalog, router, QueryLimits(4096, most_batch), releases.answers)
    try:
        yield Bench(root, engine, predictions, releases)
    finally:
        await predictions.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until background work has made ``condition`` true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - counters send no notification
            await asyncio.sleep(0.001)
