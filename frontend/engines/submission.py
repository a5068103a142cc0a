"""Submission of queries: a callback is called with the outcome of the query, at once or later.

A task for each query would cost more than its answer. If something has to be awaited, the receiver of the query awaits
it in a task of its own; a caller that wants to wait uses :func:`answer_of`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from serving.call.call import Call
from serving.domain.prediction import Outcome, Prediction, Query

Done: TypeAlias = Callable[[Prediction | Exception], object]
"""Callback for the outcome of a query, called once: with the answer, or with the error."""

Withdraw: TypeAlias = Callable[[], object]
"""Withdraws a query that no caller waits for: its outcome is not reported. Has no effect afterwards."""

BatchDone: TypeAlias = Callable[[Sequence[Outcome | None] | Exception], object]
"""Callback for the outcomes of a batch, called once: with one outcome for each query, in order, ``None`` if the query
is to be sent alone; or with the error of the batch."""

SubmitBatch: TypeAlias = Callable[[Sequence[Query], Call, BatchDone], Withdraw | None]
"""Submits a batch, of which only what can be answered at once is answered.

``BatchDone`` is called before this returns or later.

Returns ``None``, and has done nothing, if something has to be awaited before the batch can be sent."""


class Submit(Protocol):
    """Receiver of queries."""

    def submit(self, query: Query, call: Call, done: Done) -> Withdraw | None:
        """Submit the query; ``done`` is called with its outcome, before this returns or later.

        Returns ``None`` if ``done`` was already called.
        """


async def answer_of(to: Submit, query: Query, call: Call) -> Prediction:
    """Submit a query and return its answer. Raises the outcome if it is an error."""
    outcome: asyncio.Future[Prediction | Exception] = asyncio.get_running_loop().create_future()

    def done(result: Prediction | Exception) -> None:
        if not outcome.done():
            outcome.set_result(result)

    withdraw = to.submit(query, call, done)
    try:
        result = await outcome
    except asyncio.CancelledError:
        if withdraw is not None:
            withdraw()
        raise
    if isinstance(result, Exception):
        raise result
    return result
