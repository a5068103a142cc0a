"""Metrics of versions on trial."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from frontend.releases.rollouts import Rollouts
from frontend.releases.trials import Trials

_LABELS: Final = ("model", "role", "version")
_COUNTS: Final = {
    "answers": "Queries sent to a version while a version of its name is on trial",
    "errors": "Queries that a version on trial failed and stable did not",
    "compared": "Answers of versions on trial that were compared with those of stable",
    "agreed": "Compared answers that had the same label as stable",
    "skipped": "Answers of versions on trial that were not compared, because too many comparisons were in progress",
}
"""Meanings of the counts, by their names in :class:`~frontend.releases.trials.TrialCounts`."""


class ReleaseCollector(Collector):
    """Collector of the release metrics.

    Args:
        rollouts: rollouts of the releases.
        trials: counts of versions on trial.
        models: maximum number of names with metrics of their own; the busiest names get them.
    """

    def __init__(self, rollouts: Rollouts, trials: Trials, models: int) -> None:
        self._rollouts = rollouts
        self._trials = trials
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Return every metric with its current value. Called in any thread."""
        taken_back = "Canaries that this frontend took back automatically."
        yield CounterMetricFamily("intent_canaries_taken_back", taken_back, value=self._trials.taken_back)
        if not self._models:
            return
        busiest = heapq.nlargest(self._models, self._rollouts.every(), key=lambda rollout: rollout.calls)
        revision = GaugeMetricFamily(
            "intent_release_revision", "Revision of the release in force, for the busiest names.", labels=["model"]
        )
        for rollout in busiest:
            revision.add_metric([rollout.name], rollout.release.revision)
        yield revision
        # Ranked only among names on trial, by answers: a busy name without a trial must not hide them.
        trials = heapq.nlargest(self._models, self._trials.of_all(), key=lambda each: each[1][0].answers)
        for field, meaning in _COUNTS.items():
            counter = CounterMetricFamily(f"intent_release_{field}", f"{meaning}.", labels=_LABELS)
            for name, counts in trials:
                for each in counts:
                    counter.add_metric([name, each.role, each.version], getattr(each, field))
            yield counter
