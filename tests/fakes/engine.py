"""A fake engine that takes batches; no real engine holds a batch back until the queries behind it have gathered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from serving.call.call import Call, current_call
from serving.domain.prediction import Outcome, Prediction, Query
from tests.builders import a_prediction
from tests.fakes.backend import FakeBackend


def _without_labels(query: Query) -> Outcome:
    """Answer with the document, without the best labels: a query may request a million of them."""
    return a_prediction(query._replace(k=0))


class FakeEngine(FakeBackend):
    """An engine that answers batches of ready models as ``answer`` says, and keeps the queries it receives.

    Args:
        answer: returns the outcome of a query.
        held: whether batches of ready models wait until ``may_answer`` is set.
        refusal: the error of every batch of ready models.
    """

    def __init__(
        self,
        answer: Callable[[Query], Outcome] = _without_labels,
        *,
        held: bool = False,
        refusal: Exception | None = None,
    ) -> None:
        super().__init__(answer)
        self.refusal = refusal
        self.cold: set[str] = set()
        """Models that are not ready."""
        self.alone: list[Query] = []
        """Queries that arrived one by one."""
        self.taken: list[list[Query]] = []
        """Batches of ready models."""
        self.served_as: list[Call] = []
        """The call that each of these batches was served as."""
        self.cancelled = 0
        self.asked_twice = asyncio.Event()
        self.may_answer = asyncio.Event()
        if not held:
            self.may_answer.set()

    async def predict(self, query: Query, call: Call) -> Prediction:
        self.alone.append(query)
        return await super().predict(query, call)

    async def predict_ready(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome | None]:
        self.taken.append(list(queries))
        self.calls.append(call)
        self.served_as.append(current_call())
        if len(self.taken) == 2:
            self.asked_twice.set()
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.refusal is not None:
            raise self.refusal
        return [None if query.model_id in self.cold else self.answer(query) for query in queries]

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.taken]
