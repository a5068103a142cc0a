"""Releases as applied to calls: the version that a call gets, and the counts of each version.

All state belongs to one event loop.
"""

from __future__ import annotations

import random
from collections import OrderedDict

from frontend.releases.bounds import BOUNDS, ReleaseBounds
from frontend.releases.known import KnownReleases
from frontend.releases.trials import CANARY, SHADOW, STABLE, TrialCounts, Trials
from serving.domain.model_id import ModelId, versioned
from serving.domain.releases.release import Canary, Release, Shadow, falls_within


class OnTrial:
    """A version on trial."""

    __slots__ = ("began", "counts", "model_id", "terms")

    def __init__(self, name: ModelId, role: str, terms: Canary | Shadow, began: int) -> None:
        self.terms = terms
        self.began = began
        """Revision that put the version on trial; 0 if the release's history no longer shows it."""
        self.model_id = versioned(name, terms.version)
        self.counts = TrialCounts(role, terms.version)


class Rollout:
    """One release, until the next one replaces it."""

    __slots__ = ("calls", "canary", "canary_terms", "name", "release", "shadow", "stable", "stable_counts", "withdrawn")

    def __init__(self, name: ModelId, release: Release, former: Rollout | None = None) -> None:
        self.name = name
        self.release = release
        self.calls: int = 0 if former is None else former.calls
        """Number of calls that asked for the name alone."""
        self.stable = versioned(name, release.stable)
        self.shadow = _on_trial(name, release, SHADOW, former)
        self.canary = _on_trial(name, release, CANARY, former)
        self.canary_terms = release.canary
        self.withdrawn: OnTrial | None = None
        """Canary that this frontend has taken back, whether or not the release already says so."""
        if former is not None and former.withdrawn is not None and former.withdrawn is self.canary:
            self.withdraw()
        self.stable_counts: TrialCounts = TrialCounts(STABLE, release.stable)
        if former is not None and former.stable == self.stable:
            self.stable_counts = former.stable_counts

    @property
    def counts(self) -> tuple[TrialCounts, ...]:
        """Counts of stable and of the versions on trial; empty if no version is on trial."""
        trials = [trial.counts for trial in (self.canary or self.withdrawn, self.shadow) if trial is not None]
        return (self.stable_counts, *trials) if trials else ()

    def goes_to_canary(self, key: str) -> OnTrial | None:
        """Return the canary if the canary is to answer; the choice for a key is fixed as long as the canary stays."""
        canary = self.canary
        return canary if canary is not None and _within(self.name, canary, key) else None

    def goes_to_shadow(self, key: str) -> OnTrial | None:
        """Return the shadow if it is to be sent the query that stable was sent."""
        shadow = self.shadow
        return shadow if shadow is not None and _within(self.name, shadow, key) else None

    def selected(self, selector: str) -> ModelId:
        """Return the model that ``name@selector`` means."""
        if selector == CANARY and self.canary is None:
            return self.stable
        return versioned(self.name, self.release.version_of(selector))

    def live(self) -> tuple[ModelId, ...]:
        """Return the models that calls may reach without naming their versions, stable first."""
        return tuple(versioned(self.name, version) for version in self.release.live_versions())

    def withdraw(self) -> None:
        """Stop sending calls to the canary."""
        self.withdrawn, self.canary = self.canary, None


Route = ModelId | Rollout
"""Target of a query: one model, regardless of releases, or the rollout of a name."""


class Rollouts:
    """Rollouts of the queried names, the most recently queried last.

    Args:
        known: releases by name.
        trials: is notified of the counts of versions on trial.
        bounds: bounds and times.
    """

    def __init__(self, known: KnownReleases, trials: Trials, bounds: ReleaseBounds = BOUNDS) -> None:
        self._most = bounds.most_rollouts
        self._known = known
        self._trials = trials
        self._rollouts: OrderedDict[ModelId, Rollout] = OrderedDict()

    def has_none(self, name: ModelId) -> bool:
        """Return whether the name is known to have no release; false if that has to be looked up first."""
        return self._known.has_none(name)

    async def of(self, name: ModelId) -> Rollout | None:
        """Return the rollout of the name; ``None`` if it has no release.

        Raises:
            ServingError: as :meth:`KnownReleases.of` does.
        """
        release = await self._known.of(name)
        rollout = self._rollouts.get(name)
        if rollout is not None and rollout.release is release:
            self._rollouts.move_to_end(name)
            return rollout
        return self._next(name, release, rollout)

    def every(self) -> list[Rollout]:
        """Return all rollouts. May be called in any thread."""
        return list(self._rollouts.copy().values())

    async def close(self) -> None:
        """Cancel all lookups."""
        await self._known.close()

    def _next(self, name: ModelId, release: Release | None, former: Rollout | None) -> Rollout | None:
        if release is None:
            if former is not None:
                self._forget(name)
            return None
        rollout = Rollout(name, release, former)
        self._rollouts[name] = rollout
        self._rollouts.move_to_end(name)
        self._trials.keep(name, rollout.counts)
        if len(self._rollouts) > self._most:
            self._forget(next(iter(self._rollouts)))
        return rollout

    def _forget(self, name: ModelId) -> None:
        del self._rollouts[name]
        self._trials.keep(name, ())


def _within(name: ModelId, trial: OnTrial, key: str) -> bool:
    share = trial.terms.share
    if key:
        return falls_within(share, name, trial.terms.version, key)
    return random.random() < share  # noqa: S311 - no secret depends on it


def _on_trial(name: ModelId, release: Release, role: str, former: Rollout | None) -> OnTrial | None:
    terms = release.canary if role == CANARY else release.shadow
    if terms is None:
        return None
    began = max(
        (each.revision for each in release.history if each.action == role and each.version == terms.version), default=0
    )
    same = None if former is None else former.shadow if role == SHADOW else former.canary or former.withdrawn
    if same is not None and same.began == began and same.terms == terms:
        # Another change of the release does not restart the trial.
        return same
    return OnTrial(name, role, terms, began)
