"""Answers to queries for names that have a release: from stable, or from a canary for its share of the queries.

Callers never suffer from a canary. If the canary fails for any reason, the query is sent to stable within the same
deadline, and stable's answer is returned; a canary therefore gets only half of the remaining time. The error is counted
against the canary if stable answered and the error speaks against a version at all (:mod:`frontend.releases.blame`). A
caller that names the canary by its version, or as ``name@canary``, gets the canary's answer, and nothing is counted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import structlog

from frontend.releases.blame import TooSlow, speaks_against
from frontend.releases.bounds import BOUNDS, ReleaseBounds
from frontend.releases.canary_guard import CanaryGuard
from frontend.releases.comparisons import Answered, Comparison, Comparisons
from frontend.releases.rollouts import OnTrial, Rollout, Rollouts, Route
from frontend.releases.trials import CANARY, STABLE
from frontend.routing.answers import ModelAnswers
from serving.call.call import Call
from serving.call.closing import close_in_order
from serving.call.deadline import Deadline
from serving.domain.errors import INTERNAL_MESSAGE, DeadlineExceeded, ServingError
from serving.domain.model_id import ModelId, reference_of
from serving.domain.prediction import Outcome, Prediction, Query

log = structlog.get_logger()


class RoutedQuery(NamedTuple):
    """A query, and the version that answers it."""

    query: Query
    model_id: ModelId
    """Model that is queried, unless the canary is."""
    rollout: Rollout | None = None
    """Rollout of the name; ``None``: the query names the version."""
    canary: OnTrial | None = None

    @classmethod
    def of(cls, route: Route, query: Query) -> RoutedQuery:
        """Return the routed query. Whether the canary answers is decided here."""
        if not isinstance(route, Rollout):
            return cls(query, route)
        route.calls += 1
        return cls(query, route.stable, route, route.goes_to_canary(query.key))


class ReleasedAnswers:
    """Answers of the versions of names.

    Args:
        answers: queries the models.
        rollouts: rollouts of the releases.
        comparisons: compares answers in the background.
        canary_guard: judges canaries.
        bounds: bounds and times.
    """

    def __init__(
        self,
        answers: ModelAnswers,
        rollouts: Rollouts,
        comparisons: Comparisons,
        canary_guard: CanaryGuard,
        bounds: ReleaseBounds = BOUNDS,
    ) -> None:
        self._bounds = bounds
        self._answers = answers
        self._rollouts = rollouts
        self._comparisons = comparisons
        self._canary_guard = canary_guard

    def has_none(self, model_id: ModelId) -> bool:
        """Return whether ``model_id`` is known to be a name without a release; false if only :meth:`route` can tell."""
        return self._rollouts.has_none(model_id)

    async def route(self, model_id: ModelId) -> Route:
        """Return the target of ``model_id`` as a caller writes it.

        Raises:
            ServingError: as :meth:`KnownReleases.of` does.
        """
        name, selector = reference_of(model_id)
        rollout = await self._rollouts.of(name)
        if rollout is None:
            return model_id
        return rollout.selected(selector) if selector else rollout

    async def predict(self, route: Route, query: Query, call: Call) -> Prediction:
        """Return the answer of the selected version. Raises stable's ServingError."""
        routed = RoutedQuery.of(route, query)
        call.notes.model = routed.model_id
        if routed.canary is None:
            answer = await self._answers.predict(routed.model_id, query, call)
            if routed.rollout is not None:
                call.notes.release = STABLE
                self._after_stable([(routed, answer)], call)
            return answer
        (outcome,) = await self._of_canaries([(routed.canary, query)], call)
        if isinstance(outcome, Prediction):
            call.notes.release = CANARY
            self._after_canary([(routed, outcome)], call)
            return outcome
        answer = await self._answers.predict(routed.model_id, query, call)
        call.notes.release = STABLE
        self._count_error(routed, outcome)
        return answer

    async def predict_batch(self, routed: Sequence[RoutedQuery], call: Call) -> list[Outcome]:
        """Return the outcome of each query, in order."""
        canaries = {index: (each.canary, each.query) for index, each in enumerate(routed) if each.canary is not None}
        others = [index for index in range(len(routed)) if index not in canaries]
        # Canaries are queried in a separate call: one that hangs would delay the others.
        of_others, of_canaries = await asyncio.gather(
            self._of_models([routed[index] for index in others], call), self._of_canaries(list(canaries.values()), call)
        )
        outcomes = dict(zip([*others, *canaries], [*of_others, *of_canaries], strict=True))
        self._after_stable(_answered(routed, others, outcomes), call)
        self._after_canary(_answered(routed, canaries, outcomes), call)
        failed = {index: error for index in canaries if isinstance(error := outcomes[index], ServingError)}
        for index, outcome in zip(
            failed, await self._of_models([routed[index] for index in failed], call), strict=True
        ):
            outcomes[index] = outcome
            if isinstance(outcome, Prediction):
                self._count_error(routed[index], failed[index])
        return [outcomes[index] for index in range(len(routed))]

    async def close(self) -> None:
        """Cancel the work in the background."""
        await close_in_order(self._comparisons.close, self._canary_guard.close, self._rollouts.close)

    async def _of_models(self, routed: Sequence[RoutedQuery], call: Call) -> Sequence[Outcome]:
        if not routed:
            return ()
        return await self._answers.predict_batch([(each.model_id, each.query) for each in routed], call)

    async def _of_canaries(self, asked: Sequence[tuple[OnTrial, Query]], call: Call) -> Sequence[Outcome]:
        """Return the outcomes of canaries, which get half of the remaining time."""
        if not asked:
            return ()
        seconds = min(call.deadline.remaining() / 2, self._bounds.most_canary_seconds)
        own = call.with_deadline(Deadline.after(seconds))
        models = [(canary.model_id, query) for canary, query in asked]
        outcomes: Sequence[Outcome]
        try:
            async with asyncio.timeout(seconds):
                if len(models) == 1:
                    # A single query is sent together with those of other callers.
                    outcomes = [await self._answers.predict(*models[0], own)]
                else:
                    outcomes = await self._answers.predict_batch(models, own)
        except TimeoutError:
            outcomes = [self._too_late(seconds)] * len(asked)
        except ServingError as error:
            outcomes = [error] * len(asked)
        except Exception:
            log.exception("canary failed")
            outcomes = [ServingError(INTERNAL_MESSAGE)] * len(asked)
        return [self._too_late(seconds) if isinstance(outcome, DeadlineExceeded) else outcome for outcome in outcomes]

    def _too_late(self, seconds: float) -> DeadlineExceeded:
        kind = TooSlow if seconds >= self._bounds.slow_seconds else DeadlineExceeded
        return kind("the canary did not answer in time")

    def _count_error(self, routed: RoutedQuery, error: ServingError) -> None:
        """Count a canary's error after stable has answered."""
        rollout, canary = routed.rollout, routed.canary
        if rollout is None or canary is None:
            return
        rollout.stable_counts.answers += 1
        log.info("canary failed; stable answered", model=canary.model_id, code=error.code.name, reason=str(error))
        if speaks_against(error):
            canary.counts.answers += 1
            canary.counts.errors += 1
            self._canary_guard.judge(rollout, canary)

    def _after_stable(self, answered: Iterable[tuple[RoutedQuery, Prediction]], call: Call) -> None:
        """Count stable's answers, and send the same queries to shadows."""
        shadowed: dict[OnTrial, list[Answered]] = defaultdict(list)
        for each, answer in answered:
            rollout = each.rollout
            if rollout is None or (rollout.canary is None and rollout.shadow is None):
                continue
            rollout.stable_counts.answers += 1
            shadow = rollout.goes_to_shadow(each.query.key)
            if shadow is not None:
                shadowed[shadow].append((each.query, answer))
        for shadow, group in shadowed.items():
            self._comparisons.begin(Comparison(shadow.model_id, group, shadow.counts, of_canary=False), call)

    def _after_canary(self, answered: Iterable[tuple[RoutedQuery, Prediction]], call: Call) -> None:
        """Count the canaries' answers, and send the same queries to stable."""
        groups: dict[tuple[Rollout, OnTrial], list[Answered]] = defaultdict(list)
        for each, answer in answered:
            if each.rollout is not None and each.canary is not None:
                each.canary.counts.answers += 1
                groups[each.rollout, each.canary].append((each.query, answer))
        for (rollout, canary), group in groups.items():
            judge = partial(self._canary_guard.judge, rollout, canary)
            self._comparisons.begin(Comparison(rollout.stable, group, canary.counts, of_canary=True, done=judge), call)


def _answered(
    routed: Sequence[RoutedQuery], indices: Iterable[int], outcomes: Mapping[int, Outcome]
) -> Iterable[tuple[RoutedQuery, Prediction]]:
    return [(routed[index], outcome) for index in indices if isinstance(outcome := outcomes[index], Prediction)]
