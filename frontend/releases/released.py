"""Answers queries for names that have a release: by stable, or by a canary for its share of them.

Callers never suffer from a canary. Where it fails, whatever the reason, stable is asked within the same deadline, and
what stable says is the answer; a canary gets half of the time that is left for that. Its error is counted against it
where stable answered and the error speaks against a version at all (:mod:`frontend.releases.blame`). Who asks for a
canary by its version, or as ``name@canary``, gets what it says, and nothing of that is counted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import structlog

from frontend.releases.blame import TooSlow, speaks_against
from frontend.releases.canary_guard import CanaryGuard
from frontend.releases.comparisons import Answered, Comparison, Comparisons
from frontend.releases.rollouts import OnTrial, Rollout, Rollouts, Route
from frontend.releases.trials import CANARY, STABLE
from frontend.routing.answers import ModelAnswers
from serving.call.call import Call
from serving.call.deadline import Deadline
from serving.domain.errors import INTERNAL_MESSAGE, DeadlineExceeded, ServingError
from serving.domain.model_id import ModelId, reference_of
from serving.domain.prediction import Outcome, Prediction, Query

log = structlog.get_logger()

# A canary that hangs must leave time for stable, however much the caller has.
_MOST_SECONDS: Final = 10.0
# What takes longer than that is slow; what had less may have been given too little.
_SLOW_SECONDS: Final = 1.0


class RoutedQuery(NamedTuple):
    """A query on its way to a version."""

    query: Query
    model_id: ModelId
    """Who is asked, unless it is the canary."""
    rollout: Rollout | None = None
    """``None``: the query names the version."""
    canary: OnTrial | None = None

    @classmethod
    def of(cls, route: Route, query: Query) -> RoutedQuery:
        """Return the query's turn. Whether the canary answers is decided here."""
        if not isinstance(route, Rollout):
            return cls(query, route)
        route.calls += 1
        return cls(query, route.stable, route, route.goes_to_canary(query.key))


class ReleasedAnswers:
    """Has versions answer.

    Args:
        answers: asks the models.
        rollouts: know the releases.
        comparisons: compares, in the background.
        canary_guard: judges canaries.
    """

    def __init__(
        self, answers: ModelAnswers, rollouts: Rollouts, comparisons: Comparisons, canary_guard: CanaryGuard
    ) -> None:
        self._answers = answers
        self._rollouts = rollouts
        self._comparisons = comparisons
        self._canary_guard = canary_guard

    def has_none(self, model_id: ModelId) -> bool:
        """Return whether ``model_id`` is known to be a name without a release; no, where :meth:`route` has to tell."""
        return self._rollouts.has_none(model_id)

    async def route(self, model_id: ModelId) -> Route:
        """Return what ``model_id`` as a caller writes it stands for.

        Raises:
            ServingError: as :meth:`KnownReleases.of` does.
        """
        name, selector = reference_of(model_id)
        rollout = await self._rollouts.of(name)
        if rollout is None:
            return model_id
        return rollout.selected(selector) if selector else rollout

    async def predict(self, route: Route, query: Query, call: Call) -> Prediction:
        """Return the answer of the version that is to answer. Raises stable's ServingError."""
        turn = RoutedQuery.of(route, query)
        call.notes.model = turn.model_id
        if turn.canary is None:
            answer = await self._answers.predict(turn.model_id, query, call)
            if turn.rollout is not None:
                call.notes.release = STABLE
                self._after_stable([(turn, answer)], call)
            return answer
        (outcome,) = await self._of_canaries([(turn.canary, query)], call)
        if isinstance(outcome, Prediction):
            call.notes.release = CANARY
            self._after_canary([(turn, outcome)], call)
            return outcome
        answer = await self._answers.predict(turn.model_id, query, call)
        call.notes.release = STABLE
        self._count_error(turn, outcome)
        return answer

    async def predict_batch(self, turns: Sequence[RoutedQuery], call: Call) -> list[Outcome]:
        """Return the outcome of each query, in order."""
        canaries = {index: (turn.canary, turn.query) for index, turn in enumerate(turns) if turn.canary is not None}
        others = [index for index in range(len(turns)) if index not in canaries]
        # Canaries in a call of their own: one that hangs would hold up the others.
        of_others, of_canaries = await asyncio.gather(
            self._of_models([turns[index] for index in others], call), self._of_canaries(list(canaries.values()), call)
        )
        outcomes = dict(zip([*others, *canaries], [*of_others, *of_canaries], strict=True))
        self._after_stable(_answered(turns, others, outcomes), call)
        self._after_canary(_answered(turns, canaries, outcomes), call)
        failed = {index: error for index in canaries if isinstance(error := outcomes[index], ServingError)}
        for index, outcome in zip(failed, await self._of_models([turns[index] for index in failed], call), strict=True):
            outcomes[index] = outcome
            if isinstance(outcome, Prediction):
                self._count_error(turns[index], failed[index])
        return [outcomes[index] for index in range(len(turns))]

    async def close(self) -> None:
        """End what is under way in the background."""
        await self._comparisons.close()
        await self._canary_guard.close()
        await self._rollouts.close()

    async def _of_models(self, turns: Sequence[RoutedQuery], call: Call) -> Sequence[Outcome]:
        if not turns:
            return ()
        return await self._answers.predict_batch([(turn.model_id, turn.query) for turn in turns], call)

    async def _of_canaries(self, asked: Sequence[tuple[OnTrial, Query]], call: Call) -> Sequence[Outcome]:
        """Return what canaries answer in half of the time there is, or why they do not."""
        if not asked:
            return ()
        seconds = min(call.deadline.remaining() / 2, _MOST_SECONDS)
        own = call.with_deadline(Deadline.after(seconds))
        models = [(canary.model_id, query) for canary, query in asked]
        outcomes: Sequence[Outcome]
        try:
            async with asyncio.timeout(seconds):
                if len(models) == 1:
                    # Together with what others ask.
                    outcomes = [await self._answers.predict(*models[0], own)]
                else:
                    outcomes = await self._answers.predict_batch(models, own)
        except TimeoutError:
            outcomes = [_too_late(seconds)] * len(asked)
        except ServingError as error:
            outcomes = [error] * len(asked)
        except Exception:
            log.exception("canary failed")
            outcomes = [ServingError(INTERNAL_MESSAGE)] * len(asked)
        return [_too_late(seconds) if isinstance(outcome, DeadlineExceeded) else outcome for outcome in outcomes]

    def _count_error(self, turn: RoutedQuery, error: ServingError) -> None:
        """Count a canary's error where stable has answered."""
        rollout, canary = turn.rollout, turn.canary
        if rollout is None or canary is None:
            return
        rollout.stable_counts.answers += 1
        log.info("canary failed; stable answered", model=canary.model_id, code=error.code.name, reason=str(error))
        if speaks_against(error):
            canary.counts.answers += 1
            canary.counts.errors += 1
            self._canary_guard.judge(rollout, canary)

    def _after_stable(self, answered: Iterable[tuple[RoutedQuery, Prediction]], call: Call) -> None:
        """Count stable's answers, and have shadows asked the same."""
        shadowed: dict[OnTrial, list[Answered]] = defaultdict(list)
        for turn, answer in answered:
            rollout = turn.rollout
            if rollout is None or (rollout.canary is None and rollout.shadow is None):
                continue
            rollout.stable_counts.answers += 1
            shadow = rollout.goes_to_shadow(turn.query.key)
            if shadow is not None:
                shadowed[shadow].append((turn.query, answer))
        for shadow, group in shadowed.items():
            self._comparisons.begin(Comparison(shadow.model_id, group, shadow.counts, of_canary=False), call)

    def _after_canary(self, answered: Iterable[tuple[RoutedQuery, Prediction]], call: Call) -> None:
        """Count the canaries' answers, and have stable asked the same."""
        groups: dict[tuple[Rollout, OnTrial], list[Answered]] = defaultdict(list)
        for turn, answer in answered:
            if turn.rollout is not None and turn.canary is not None:
                turn.canary.counts.answers += 1
                groups[turn.rollout, turn.canary].append((turn.query, answer))
        for (rollout, canary), group in groups.items():
            judge = partial(self._canary_guard.judge, rollout, canary)
            self._comparisons.begin(Comparison(rollout.stable, group, canary.counts, of_canary=True, done=judge), call)


def _answered(
    turns: Sequence[RoutedQuery], indices: Iterable[int], outcomes: Mapping[int, Outcome]
) -> Iterable[tuple[RoutedQuery, Prediction]]:
    return [(turns[index], outcome) for index in indices if isinstance(outcome := outcomes[index], Prediction)]


def _too_late(seconds: float) -> DeadlineExceeded:
    kind = TooSlow if seconds >= _SLOW_SECONDS else DeadlineExceeded
    return kind("the canary has not answered in time")
