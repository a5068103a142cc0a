"""From logits to probabilities, without NumPy: the frontend has none."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence


def most_likely(logits: Sequence[float], k: int) -> list[tuple[int, float]]:
    """Return the index and the softmax probability of the ``k`` highest logits, highest first; of equal ones the first.

    REQUIRES: all logits are finite, and there is at least one.
    """
    highest = max(logits)
    total = math.fsum(math.exp(logit - highest) for logit in logits)
    order = heapq.nlargest(k, range(len(logits)), key=logits.__getitem__)
    return [(index, math.exp(logits[index] - highest) / total) for index in order]
