"""A fake backend whose answers wait for a test; no real engine begins and ends its work at a chosen moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from serving.call.call import Call
from serving.domain.prediction import Outcome, Query
from tests.fakes.backend import FakeBackend


class FakeHangingBackend(FakeBackend):
    """An engine that does not answer before ``may_answer`` is set, and reports how its work ended.

    Args:
        version: suffix of the ids of models that hang; other models answer at once.
    """

    def __init__(self, version: str = "") -> None:
        super().__init__()
        self.version = version
        self.hanging = 0
        """Batches that hang."""
        self.started = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        if any(query.model_id.endswith(self.version) for query in queries):
            self.hanging += 1
            self.started.set()
            try:
                await self.may_answer.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            finally:
                self.hanging -= 1
        return await super().predict_batch(queries, call)
