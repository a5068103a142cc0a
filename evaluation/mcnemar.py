"""McNemar's test: whether two classifiers differ by more than chance, from the rows that only one gets right."""

from __future__ import annotations

import math


def mcnemar_p_value(wins: int, losses: int) -> float:
    """Return the probability, from 0 to 1, of a split at least this uneven if both classifiers are equally good.

    The test is exact and two-sided: each row that only one classifier gets right is a fair coin toss. Source: McNemar,
    "Note on the sampling error of the difference between correlated proportions or percentages", 1947; the exact form
    is that of Fagerland, Lydersen and Laake, "The McNemar test for binary matched-pairs data", 2013.

    Args:
        wins: rows that only one classifier gets right.
        losses: rows that only the other classifier gets right.
    """
    tosses, fewer = wins + losses, min(wins, losses)
    if 2 * fewer == tosses:
        return 1.0
    # Sum the binomial terms of the tail from the largest down; each follows from its ratio to the previous term.
    ratio = tail = 1.0
    for heads in range(fewer, 0, -1):
        ratio *= heads / (tosses - heads + 1)
        tail += ratio
    # Divide integers, because both can be far too large for a float.
    largest = math.comb(tosses, fewer) / (1 << tosses)
    return min(1.0, 2 * largest * tail)
