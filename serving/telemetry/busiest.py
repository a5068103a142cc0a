"""Counts by key, in bounded memory, for far more keys than places; the largest counts are reliable.

The algorithm is Space-Saving by Metwally, Agrawal and El Abbadi ("Efficient Computation of Frequent and Top-k Elements
in Data Streams", 2005): when all places are taken, a new key replaces the key with the smallest count and continues
from that count. A count is therefore too large by at most the smallest count, which is at most the sum of all counts
divided by the number of places. Every key with a larger count than that is among the counts, and the count of a key
never falls, even if the key is replaced and returns.
"""

from __future__ import annotations

import heapq
from operator import itemgetter
from typing import Final

PLACES: Final = 1024


class BusiestCounts:
    """Counts of the busiest keys. Belongs to one thread, except :meth:`busiest`, which any thread may call.

    Args:
        places: maximum number of keys that are counted at a time.
    """

    __slots__ = ("_counts", "_least", "_places")

    def __init__(self, places: int = PLACES) -> None:
        self._places = places
        self._counts: dict[str, int] = {}
        self._least: list[tuple[int, str]] = []
        """Heap with one entry per key: its current count or an earlier one."""

    def count(self, key: str) -> str | None:
        """Count ``key``; return the key that it has replaced, if any."""
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
        # Outdated counts in the heap are corrected only here, which happens no more often than keys were counted.
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
