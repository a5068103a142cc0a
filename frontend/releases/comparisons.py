"""Comparison of answers of a version on trial with those of stable, outside the calls: no caller waits for it.

The other version is sent the same queries in the background. The number of queries compared at the same time is
bounded; those beyond the bound are not compared, but counted as skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import structlog

from frontend.releases.blame import TooSlow, speaks_against
from frontend.releases.bounds import BOUNDS, ReleaseBounds
from frontend.releases.trials import TrialCounts
from frontend.routing.answers import ModelAnswers
from serving.call.call import Call, enter_call
from serving.call.deadline import Deadline
from serving.call.tasks import Tasks
from serving.domain.errors import ServingError
from serving.domain.model_id import ModelId
from serving.domain.prediction import Outcome, Prediction, Query

log = structlog.get_logger()

MOST_QUERIES: Final = 256
"""Maximum number of queries compared at the same time."""

Answered = tuple[Query, Prediction]
"""A query, and the answer that the caller received."""


class Comparison(NamedTuple):
    """Answers to compare."""

    other: ModelId
    """Model that is sent the same queries."""
    answered: Sequence[Answered]
    counts: TrialCounts
    """Counts of the version on trial."""
    of_canary: bool
    """Whether the answers are a canary's, and stable is queried; else they are stable's, and a shadow is queried."""
    done: Callable[[], None] = lambda: None
    """Called when the comparison was counted."""


class Comparisons:
    """Comparisons in progress.

    Args:
        answers: queries the models.
        bounds: bounds and times.
    """

    def __init__(self, answers: ModelAnswers, bounds: ReleaseBounds = BOUNDS) -> None:
        self._answers = answers
        self._seconds = bounds.comparison_seconds
        self._room = MOST_QUERIES
        self._tasks = Tasks()
        self._closed = False

    def begin(self, comparison: Comparison, call: Call) -> None:
        """Compare answers that were given in ``call``, up to the free capacity."""
        taken = comparison.answered[: self._room]
        comparison.counts.skipped += len(comparison.answered) - len(taken)
        if not taken or self._closed:
            return
        self._room -= len(taken)
        # A separate call: the slot and the span of the caller's call end when the caller is answered.
        own = call.apart(Deadline.after(self._seconds))
        self._tasks.start(self._compare(comparison._replace(answered=taken), own))

    async def close(self) -> None:
        """Cancel all comparisons."""
        self._closed = True
        await self._tasks.close()

    async def _compare(self, comparison: Comparison, call: Call) -> None:
        enter_call(call)
        counts, of_canary = comparison.counts, comparison.of_canary
        try:
            outcomes = await self._outcomes(comparison, call)
        except Exception:
            # No caller waits for the comparison, so nothing else would report this.
            log.exception("comparison failed", model=comparison.other)
            return
        finally:
            self._room += len(comparison.answered)
        for (_, answer), outcome in zip(comparison.answered, outcomes, strict=True):
            counts.answers += not of_canary
            if isinstance(outcome, Prediction):
                counts.compared += 1
                counts.agreed += outcome.label == answer.label
            elif not of_canary and speaks_against(outcome):
                counts.errors += 1
        comparison.done()

    async def _outcomes(self, comparison: Comparison, call: Call) -> Sequence[Outcome]:
        # Only the label is compared, so nothing else is requested.
        queries = [(comparison.other, query._replace(k=0, explain=None)) for query, _ in comparison.answered]
        try:
            async with asyncio.timeout(self._seconds):
                if len(queries) == 1:
                    # A single query is sent together with those of callers.
                    return [await self._answers.predict(*queries[0], call)]
                return await self._answers.predict_batch(queries, call)
        except ServingError as error:
            return [error] * len(queries)
        except TimeoutError:
            return [TooSlow("the version did not answer in time")] * len(queries)
