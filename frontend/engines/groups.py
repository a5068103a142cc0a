"""Handling of many queries in the backends of all engines: group them, send each group, put the outcomes in order."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

from serving.domain.errors import ServingError
from serving.domain.prediction import Outcome, Query

Found = TypeVar("Found", bound=Outcome | None)


async def predicted_in_groups(
    queries: Sequence[Query],
    key: Callable[[Query], Hashable],
    predict: Callable[[Sequence[Query]], Awaitable[Sequence[Found]]],
) -> list[Found | ServingError]:
    """Return the outcome of each query, in order. Queries with the same ``key`` are sent together.

    A ServingError that ``predict`` raises is the outcome of each query in that group; other groups are not affected.
    """

    async def answers_of(members: Sequence[int]) -> Sequence[Found | ServingError]:
        try:
            return await predict([queries[index] for index in members])
        except ServingError as error:
            return [error] * len(members)

    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, query in enumerate(queries):
        groups[key(query)].append(index)
    answers = await asyncio.gather(*(answers_of(members) for members in groups.values()))
    outcomes = dict(zip(chain(*groups.values()), chain(*answers), strict=True))
    return [outcomes[index] for index in range(len(queries))]


def parts_of(queries: Sequence[Query], *, most: int, most_characters: int) -> Iterator[Sequence[Query]]:
    """Yield the queries in order, in parts of at most ``most`` queries and ``most_characters`` characters.

    A query that exceeds ``most_characters`` by itself is a part of its own.
    """
    start = characters = 0
    for index, query in enumerate(queries):
        characters += len(query.document)
        if index > start and (index - start == most or characters > most_characters):
            yield queries[start:index]
            start, characters = index, len(query.document)
    if start < len(queries):
        yield queries[start:]
