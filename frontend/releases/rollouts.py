"""Releases as calls are answered by them: which version a call gets, and the counts of each.

All state belongs to one event loop.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Final

from frontend.releases.known import KnownReleases
from frontend.releases.trials import CANARY, SHADOW, STABLE, TrialCounts, Trials
from serving.domain.model_id import ModelId, versioned
from serving.domain.releases.release import Canary, Release, Shadow, falls_within

_MAX_ROLLOUTS: Final = 10_000


class OnTrial:
    """A version on trial."""

    __slots__ = ("began", "counts", "model_id", "terms")

    def __init__(self, name: ModelId, role: str, terms: Canary | Shadow, began: int) -> None:
        self.terms = terms
        self.began = began
        """The revision that put it on trial, as far as the release's history tells."""
        self.model_id = versioned(name, terms.version)
        self.counts = TrialCounts(role, terms.version)


class Rollout:
    """One release, until another one takes its place."""

    __slots__ = ("calls", "canary", "canary_terms", "name", "release", "shadow", "stable", "stable_counts", "withdrawn")

    def __init__(self, name: ModelId, release: Release, former: Rollout | None = None) -> None:
        self.name = name
        self.release = release
        self.calls: int = 0 if former is None else former.calls
        """That asked for the name alone."""
        self.stable = versioned(name, release.stable)
        self.shadow = _on_trial(name, release, SHADOW, former)
        self.canary = _on_trial(name, release, CANARY, former)
        self.canary_terms = release.canary
        self.withdrawn: OnTrial | None = None
        """The canary that this frontend has taken back, whether or not the release says so already."""
        if former is not None and former.withdrawn is not None and former.withdrawn is self.canary:
            self.withdraw()
        self.stable_counts: TrialCounts = TrialCounts(STABLE, release.stable)
        if former is not None and former.stable == self.stable:
            self.stable_counts = former.stable_counts

    @property
    def counts(self) -> tuple[TrialCounts, ...]:
        """Of stable and of what is on trial; none where nothing is."""
        trials = [trial.counts for trial in (self.canary or self.withdrawn, self.shadow) if trial is not None]
        return (self.stable_counts, *trials) if trials else ()

    def goes_to_canary(self, key: str) -> OnTrial | None:
        """Return the canary where it is to answer; the same for one key, as long as it is the canary."""
        canary = self.canary
        return canary if canary is not None and _within(self.name, canary, key) else None

    def goes_to_shadow(self, key: str) -> OnTrial | None:
        """Return the shadow where it is to be asked what stable was asked."""
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
        """Give the canary no more calls."""
        self.withdrawn, self.canary = self.canary, None


Route = ModelId | Rollout
"""What a query is for: one model, whatever releases say, or what the release of a name says."""


class Rollouts:
    """Knows the rollout of each name that is asked for, the last asked last.

    Args:
        known: the releases.
        trials: is told what is on trial.
    """

    def __init__(self, known: KnownReleases, trials: Trials) -> None:
        self._known = known
        self._trials = trials
        self._rollouts: OrderedDict[ModelId, Rollout] = OrderedDict()

    def has_none(self, name: ModelId) -> bool:
        """Return whether the name is known to have no release; no, where that has to be looked up first."""
        return self._known.has_none(name)

    async def of(self, name: ModelId) -> Rollout | None:
        """Return the rollout of the name; ``None`` where it has no release.

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
        """End all look-ups."""
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
        if len(self._rollouts) > _MAX_ROLLOUTS:
            self._forget(next(iter(self._rollouts)))
        return rollout

    def _forget(self, name: ModelId) -> None:
        del self._rollouts[name]
        self._trials.keep(name, ())


def _within(name: ModelId, trial: OnTrial, key: str) -> bool:
    share = trial.terms.share
    if key:
        return falls_within(share, name, trial.terms.version, key)
    return random.random() < share  # noqa: S311 - nothing depends on its being guessed


def _on_trial(name: ModelId, release: Release, role: str, former: Rollout | None) -> OnTrial | None:
    terms = release.canary if role == CANARY else release.shadow
    if terms is None:
        return None
    began = max(
        (each.revision for each in release.history if each.action == role and each.version == terms.version), default=0
    )
    same = None if former is None else former.shadow if role == SHADOW else former.canary or former.withdrawn
    if same is not None and same.began == began and same.terms == terms:
        # A change of something else does not begin it anew.
        return same
    return OnTrial(name, role, terms, began)
