"""Che's approximation: the hit rate of a cache that evicts the least recently used, without a simulation.

In such a cache a model stays for about the same time after its last request, whichever it is: the characteristic time.
It is the time in which the models that are asked for fill the cache, and a request is a hit if the one before it is not
longer ago.

H. Che, Y. Tung, Z. Wang: Hierarchical Web caching systems: modeling, design and experimental results. IEEE Journal on
Selected Areas in Communications 20(7), 2002, 1305-1314, doi:10.1109/JSAC.2002.801752. Why it is so accurate, also for
small caches: C. Fricker, P. Robert, J. Roberts: A versatile and accurate approximation for LRU cache performance. 24th
International Teletraffic Congress, 2012, arXiv:1202.3974.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Final

from intentctl.capacity.demand import Demand, Group

_MOST_STEPS: Final = 500
_PRECISION: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Cache:
    """What a predictor may hold; both bounds are in force."""

    budget: float
    """Bytes."""
    models: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a cache comes to, once it has been in use for long enough to be full."""

    hit_rate: float
    """Of the requests for models that can be served or not, those that find theirs in memory."""
    models: float
    """Models in memory."""


def outlook(demand: Demand, cache: Cache) -> Outlook:
    """Return what ``cache`` comes to under ``demand``."""
    groups = demand.groups
    time = min(
        characteristic_time(groups, [group.size for group in groups], cache.budget),
        characteristic_time(groups, [group.models for group in groups], cache.models),
    )
    held = [_held(group, time) for group in groups]
    return Outlook(
        hit_rate=min(1.0, math.fsum(group.share * part for group, part in zip(groups, held, strict=True))),
        models=math.fsum(group.models * part for group, part in zip(groups, held, strict=True)),
    )


def budget_for(demand: Demand, hit_rate: float) -> float | None:
    """Return the bytes that one cache needs for ``hit_rate``; ``None`` where models too large keep it from that.

    REQUIRES: the bound on the number of models is not what limits the cache.
    """
    groups = demand.groups
    reachable = math.fsum(group.share for group in groups)
    if hit_rate > reachable + _PRECISION:
        return None
    # What fills here are hits instead of bytes.
    time = characteristic_time(groups, [group.share for group in groups], hit_rate)
    return math.fsum(group.size * _held(group, time) for group in groups)


def characteristic_time(groups: Sequence[Group], costs: Sequence[float], capacity: float) -> float:
    """Return the time, in requests, in which models that are asked for come to cost ``capacity``.

    It solves ``sum(cost * (1 - exp(-rate * time))) = capacity``. The left side grows with time ever more slowly, so the
    steps of Newton's method from below come nearer without going beyond, and need no upper bound.

    Args:
        groups: who is asked for, and how often.
        costs: what each group costs when all of it is in memory.
        capacity: what may be in memory; infinite time is the answer where everything may.
    """
    whole = math.fsum(costs)
    if whole <= capacity * (1 + _PRECISION):
        return math.inf
    rates = [group.rate for group in groups]
    speeds = list(map(mul, costs, rates))
    time = capacity / math.fsum(speeds)
    for _ in range(_MOST_STEPS):
        gone = [math.exp(-rate * time) for rate in rates]
        speed = sum(map(mul, speeds, gone))
        missing = capacity - whole + sum(map(mul, costs, gone))
        # At the end only rounding is left, of either sign.
        if missing <= whole * _PRECISION or not speed:
            break
        time += missing / speed
    return time


def _held(group: Group, time: float) -> float:
    """Return which part of the group is in memory; of its requests, as many find their model there."""
    return -math.expm1(-group.rate * time)
