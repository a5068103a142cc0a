"""How a query is handed over: whoever hands it over is called back with its outcome, at once or later.

A task for each query would cost more than its answer. Where something does have to be waited for, whoever has the query
waits, in a task of its own; where a caller wants to wait, :func:`answer_of` waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from serving.call.call import Call
from serving.domain.prediction import Outcome, Prediction, Query

Done: TypeAlias = Callable[[Prediction | Exception], object]
"""Takes the outcome of a query, once: its answer, or why there is none."""

Withdraw: TypeAlias = Callable[[], object]
"""Takes a query back that nobody waits for any more: its outcome is told to nobody. Afterwards it does nothing."""

BatchDone: TypeAlias = Callable[[Sequence[Outcome | None] | Exception], object]
"""Takes the outcomes of a batch, once: one for each query, in order, ``None`` where the query is to be asked alone; or
why there are none."""

SubmitBatch: TypeAlias = Callable[[Sequence[Query], Call, BatchDone], Withdraw | None]
"""Has a batch answered as far as it can be at once; ``BatchDone`` is told, before this returns or later.

Returns ``None``, and has done nothing, where something has to be waited for before the batch can go."""


class Submit(Protocol):
    """Takes queries."""

    def submit(self, query: Query, call: Call, done: Done) -> Withdraw | None:
        """Have the query answered; ``done`` is told, before this returns or later.

        Returns ``None`` where ``done`` was told already.
        """


async def answer_of(to: Submit, query: Query, call: Call) -> Prediction:
    """Return the answer to a query that is submitted now. Raises what the outcome is otherwise."""
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
