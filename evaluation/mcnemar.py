"""Whether two classifiers differ by more than chance, from the rows that only one of them gets right."""

from __future__ import annotations

import math


def mcnemar_p_value(wins: int, losses: int) -> float:
    """Return how likely so uneven a split, or a more uneven one, is where both are equally good: from 0 to 1.

    The exact two-sided test: each row that only one gets right is a fair coin. McNemar, "Note on the sampling error of
    the difference between correlated proportions or percentages", 1947; in the exact form as Fagerland, Lydersen and
    Laake, "The McNemar test for binary matched-pairs data", 2013, have it.

    Args:
        wins: rows that only the one gets right.
        losses: rows that only the other gets right.
    """
    tosses, fewer = wins + losses, min(wins, losses)
    if 2 * fewer == tosses:
        return 1.0
    # The binomial terms from the largest of the tail down, each by its ratio to the one before.
    ratio = tail = 1.0
    for heads in range(fewer, 0, -1):
        ratio *= heads / (tosses - heads + 1)
        tail += ratio
    # Integers, for both are far beyond a float.
    largest = math.comb(tosses, fewer) / (1 << tosses)
    return min(1.0, 2 * largest * tail)
