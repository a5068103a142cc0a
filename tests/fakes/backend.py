"""A fake backend of an engine: it answers and fails as a test says; a real engine is a separate server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from frontend.engines.backend import Removed
from frontend.engines.submission import Done, Withdraw
from serving.call.call import Call
from serving.domain.errors import ServingError
from serving.domain.model_id import ModelId
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.residency import ModelResidency
from tests.builders import a_prediction


class FakeBackend:
    """An engine that answers as ``answer`` says, or with an error of the whole engine.

    Keeps the batches it receives. A submitted query goes to ``predict``, in its own task.
    """

    def __init__(self, answer: Callable[[Query], Outcome] = a_prediction, failure: Exception | None = None) -> None:
        self.answer = answer
        self.failure = failure
        self.batches: list[Sequence[Query]] = []
        self.calls: list[Call] = []
        self.loaded: list[ModelId] = []
        self.pinned: set[ModelId] = set()
        self.unloaded: list[ModelId] = []
        self.forgotten: list[Removed] = []
        self.ready = asyncio.Event()
        self.closed = 0

    def submit(self, query: Query, call: Call, done: Done) -> Withdraw | None:
        async def ask() -> None:
            try:
                done(await self.predict(query, call))
            except Exception as error:  # noqa: BLE001 - the outcome, whatever it is
                done(error)

        task = asyncio.get_running_loop().create_task(ask())
        return task.cancel

    async def predict(self, query: Query, call: Call) -> Prediction:
        outcome = (await self.predict_batch([query], call))[0]
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        self.batches.append(queries)
        self.calls.append(call)
        if self.failure is not None:
            raise self.failure
        return [self.answer(query) for query in queries]

    async def load(self, model_id: ModelId, call: Call) -> ModelResidency | None:
        if self.failure is not None:
            raise self.failure
        self.loaded.append(model_id)
        return ModelResidency("replica", resident=True)

    async def residency(self, model_id: ModelId, call: Call) -> Sequence[ModelResidency]:
        return [ModelResidency("replica", resident=model_id in self.loaded, pinned=model_id in self.pinned)]

    async def unload(self, model_id: ModelId, call: Call) -> None:
        self.unloaded.append(model_id)

    async def forget(self, models: Sequence[Removed], call: Call) -> None:
        self.forgotten += models
        if self.failure is not None:
            raise self.failure

    async def wait_until_ready(self) -> None:
        await self.ready.wait()

    async def close(self) -> None:
        self.closed += 1
