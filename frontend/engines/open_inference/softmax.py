"""Probabilities from logits, without NumPy, which the frontend does not have."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence


def softmax(logits: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Return the probability of each class, from logits that are divided by ``temperature``.

    REQUIRES: all logits are finite, and there is at least one.
    """
    highest = max(logits)
    exponentials = [math.exp((logit - highest) / temperature) for logit in logits]
    total = math.fsum(exponentials)
    return [exponential / total for exponential in exponentials]


def most_likely(logits: Sequence[float], k: int) -> list[int]:
    """Return the indices of the ``k`` highest logits, highest first; equal logits keep their order."""
    return heapq.nlargest(k, range(len(logits)), key=logits.__getitem__)
