"""Che's approximation: the hit rate of a cache that evicts the least recently used model, without a simulation.

In such a cache, every model stays for about the same time after its last request. This characteristic time is the time
in which the requested models fill the cache. A request is a hit if the previous request for the same model is no older
than the characteristic time.

H. Che, Y. Tung, Z. Wang: Hierarchical Web caching systems: modeling, design and experimental results. IEEE Journal on
Selected Areas in Communications 20(7), 2002, 1305-1314, doi:10.1109/JSAC.2002.801752.

The following paper explains why the approximation is accurate even for small caches. C. Fricker, P. Robert, J. Roberts:
A versatile and accurate approximation for LRU cache performance. 24th International Teletraffic Congress, 2012,
arXiv:1202.3974.
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
    """Bounds on what a predictor may hold; both apply."""

    budget: float
    """Memory for models, in bytes."""
    models: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """Steady state of a cache that has been in use for long enough to be full."""

    hit_rate: float
    """Share of all requests, including those for models too large to be served, that find their model in memory."""
    models: float
    """Number of models in memory."""


def outlook(demand: Demand, cache: Cache) -> Outlook:
    """Return the steady state of ``cache`` under ``demand``."""
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
    """Return the bytes that one cache needs for ``hit_rate``, or ``None`` if oversized models put it out of reach.

    REQUIRES: the bound on the number of models does not limit the cache.
    """
    groups = demand.groups
    reachable = math.fsum(group.share for group in groups)
    if hit_rate > reachable + _PRECISION:
        return None
    # Fill the cache with hits instead of bytes.
    time = characteristic_time(groups, [group.share for group in groups], hit_rate)
    return math.fsum(group.size * _held(group, time) for group in groups)


def characteristic_time(groups: Sequence[Group], costs: Sequence[float], capacity: float) -> float:
    """Return the time, in requests, in which the requested models reach a total cost of ``capacity``.

    The time solves ``sum(cost * (1 - exp(-rate * time))) = capacity``. The left side grows ever more slowly with time,
    so Newton's method from below approaches the solution without overshooting and needs no upper bound.

    Args:
        groups: models, and how often they are requested.
        costs: cost of each group when all its models are in memory.
        capacity: total cost that may be in memory; the time is infinite if every group fits.
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
        # Near the solution, only rounding errors of either sign remain.
        if missing <= whole * _PRECISION or not speed:
            break
        time += missing / speed
    return time


def _held(group: Group, time: float) -> float:
    """Return the share of the group that is in memory, which is also the hit rate of its requests."""
    return -math.expm1(-group.rate * time)
