"""Any number of queries, sent in batches that a frontend accepts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from intent_serving_client.client import IntentClient
from serving.domain.errors import InvalidRequest, OutOfCapacity
from serving.domain.prediction import Outcome, Query

_BATCH: Final = 256
# A quarter of the maximum message size: a character takes up to four bytes.
_BATCH_CHARACTERS: Final = 1 << 18


def outcomes_in_batches(client: IntentClient, queries: Iterable[Query]) -> Iterator[Sequence[Outcome]]:
    """Yield the outcomes of the queries in their order, one batch at a time.

    Raises:
        ServingError: the frontend did not answer, or refused a batch for a reason other than its contents.
    """
    for batch in _batches(queries):
        yield _outcomes(client, batch)


def _batches(queries: Iterable[Query]) -> Iterator[list[Query]]:
    batch: list[Query] = []
    characters = 0
    for query in queries:
        if batch and (len(batch) >= _BATCH or characters + len(query.document) > _BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(query)
        characters += len(query.document)
    if batch:
        yield batch


def _outcomes(client: IntentClient, batch: Sequence[Query]) -> Sequence[Outcome]:
    """Send a batch. If it is refused as a whole, send its halves: one bad document must not fail the others."""
    try:
        return client.predict_batch(batch)
    except (InvalidRequest, OutOfCapacity) as error:
        if len(batch) == 1:
            return [error]
    middle = len(batch) // 2
    return [*_outcomes(client, batch[:middle]), *_outcomes(client, batch[middle:])]
