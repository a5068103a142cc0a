"""Construction of the objects that know and serve releases."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.registry import Collector

from frontend.releases.bounds import BOUNDS, ReleaseBounds
from frontend.releases.canary_guard import CanaryGuard, WriteRelease
from frontend.releases.comparisons import Comparisons
from frontend.releases.known import KnownReleases
from frontend.releases.metrics import ReleaseCollector
from frontend.releases.released import ReleasedAnswers
from frontend.releases.rollouts import Rollouts
from frontend.releases.trials import Trials
from frontend.routing.answers import ModelAnswers
from frontend.routing.catalog import Catalog
from frontend.routing.router import Router
from serving.volume.freshness.comparison import FileComparison
from serving.volume.model_store import ModelStore
from serving.volume.release_writing import change_release


@dataclass(frozen=True, slots=True)
class Releases:
    """The releases of one frontend."""

    known: KnownReleases
    trials: Trials
    answers: ReleasedAnswers
    """Answers for names that have a release; closes the other parts as well."""
    collectors: Sequence[Collector]


def build_releases(
    model_dir: Path,
    catalog: Catalog,
    router: Router,
    *,
    threads: int,
    freshness_seconds: float,
    release_freshness_seconds: float,
    comparison: FileComparison,
    metrics_models: int = 0,
    write: WriteRelease | None = None,
    bounds: ReleaseBounds = BOUNDS,
) -> Releases:
    """Return the releases below ``model_dir``, to be closed by the caller.

    Args:
        model_dir: the model folder.
        catalog: manifests of the models.
        router: selects their engines.
        threads: maximum number of releases read at the same time.
        freshness_seconds: time in seconds for which a name is trusted to have no release.
        release_freshness_seconds: time in seconds for which a release is trusted without a check.
        comparison: compares files; not closed with the releases.
        metrics_models: maximum number of names with metrics of their own.
        write: writes releases; ``None``: into ``model_dir``.
        bounds: bounds and times.
    """
    known = KnownReleases(
        ModelStore(model_dir),
        threads=threads,
        freshness_seconds=freshness_seconds,
        release_freshness_seconds=release_freshness_seconds,
        comparison=comparison,
    )
    trials = Trials()
    rollouts = Rollouts(known, trials, bounds)
    answers = ModelAnswers(catalog, router)
    canary_guard = CanaryGuard(write or functools.partial(change_release, model_dir), known, trials, bounds)
    released = ReleasedAnswers(answers, rollouts, Comparisons(answers, bounds), canary_guard, bounds)
    return Releases(known, trials, released, [ReleaseCollector(rollouts, trials, metrics_models)])
