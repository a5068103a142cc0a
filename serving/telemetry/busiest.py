"""Counts by key of what has far more keys than memory is to be spent on; the largest counts are the right ones.

It is the algorithm Space-Saving of Metwally, Agrawal and El Abbadi ("Efficient Computation of Frequent and Top-k
Elements in Data Streams", 2005): where all places are taken, a new key takes the place of the least count and goes on
from it. So a count is too large by the least one at most, which is no more than all counts together divided by the
places; what has more than that is among the counts; and the count of a key never falls, even where it comes back.
"""

from __future__ import annotations

import heapq
from operator import itemgetter
from typing import Final

PLACES: Final = 1024


class BusiestCounts:
    """Counts. Belongs to one thread; :meth:`busiest` is for any.

    Args:
        places: how many keys are counted at a time.
    """

    __slots__ = ("_counts", "_least", "_places")

    def __init__(self, places: int = PLACES) -> None:
        self._places = places
        self._counts: dict[str, int] = {}
        self._least: list[tuple[int, str]] = []
        """Of each key, a count that it has or had: a heap."""

    def count(self, key: str) -> str | None:
        """Count ``key``; return the key whose place it has taken, if any."""
        if key in self._counts:
            self._counts[key] += 1
            return None
        if len(self._counts) < self._places:
            self._counts[key] = 1
            heapq.heappush(self._least, (1, key))
            return None
        return self._replace_least(key)

    def busiest(self, limit: int) -> list[tuple[str, int]]:
        """Return the ``limit`` keys with the largest counts, largest first."""
        return heapq.nlargest(limit, self._counts.copy().items(), key=itemgetter(1))

    def _replace_least(self, key: str) -> str:
        # Where the heap knows an old count, it learns the new one now: no more often than there was something to count.
        while True:
            known, least = self._least[0]
            count = self._counts[least]
            if count == known:
                break
            heapq.heapreplace(self._least, (count, least))
        del self._counts[least]
        self._counts[key] = count + 1
        heapq.heapreplace(self._least, (count + 1, key))
        return least
