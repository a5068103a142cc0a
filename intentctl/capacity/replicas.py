"""Several predictors behind one name: with affinity, one of them serves each model; without it, any of them does.

Without affinity, every replica sees the same demand at a lower rate and ends up with the same models in memory: more
replicas answer more requests but hold no more models. With affinity, each replica serves a part of the models, so that
N replicas hold N times as many models if the parts are equal. The parts are not quite equal: models are hashed to
partitions, and partitions to segments of a ring, of which each replica owns many at random. The forecast includes the
cost of this imbalance.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Final

from intentctl.capacity.che import Cache, Outlook, outlook
from intentctl.capacity.demand import Demand

MOST_REPLICAS: Final = 1024
"""Largest number of replicas that is considered."""
_QUANTILES: Final = 15


@dataclass(frozen=True, slots=True)
class Affinity:
    """Assignment of models to replicas."""

    partitions: int = 1024
    """Number of partitions that models are hashed to.

    The frontend's ``--partitions``; the default is that of the frontend for several replicas.
    """
    places: int = 1024
    """Number of positions of each replica on the ring, as the frontend's channel sets it."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of one replica. Answering and loading share one process, so each takes time from the other."""

    requests_per_second: float
    """Rate of answers from models in memory."""
    load_seconds: float
    """Time to load one model, in seconds."""


def shares(affinity: Affinity, models: int, replicas: int) -> list[float]:
    """Return equally probable shares of the models that one replica may own; their mean is 1/N.

    Hashing assigns models to partitions, partitions to segments and segments to replicas, each as if at random. With N
    replicas, the assignment of k items gives the share of one replica a relative deviation of ``sqrt((N - 1) / k)``.
    The squares of the three deviations add up.
    """
    squared = (replicas - 1) * (1 / models + 1 / affinity.partitions + 1 / (affinity.places * replicas))
    # A log-normal distribution, because shares are never negative.
    spread = NormalDist(0.0, math.sqrt(math.log1p(squared))) if squared else None
    parts = [math.exp(spread.inv_cdf((number + 0.5) / _QUANTILES)) if spread else 1.0 for number in range(_QUANTILES)]
    mean = fmean(parts)
    return [min(1.0, part / mean / replicas) for part in parts]


def with_affinity(demand: Demand, cache: Cache, affinity: Affinity, replicas: int) -> Outlook:
    """Return the combined steady state of ``replicas`` predictors with ``cache`` each."""
    if replicas == 1:
        return outlook(demand, cache)
    parts = shares(affinity, demand.models, replicas)
    # A share of the models in one memory behaves like all models in a memory larger by the inverse of the share.
    looks = [outlook(demand, Cache(cache.budget / part, cache.models / part)) for part in parts]
    whole = math.fsum(parts)
    return Outlook(
        hit_rate=math.fsum(part * look.hit_rate for part, look in zip(parts, looks, strict=True)) / whole,
        models=math.fsum(part * look.models for part, look in zip(parts, looks, strict=True)) / whole,
    )


def replicas_for_hit_rate(demand: Demand, cache: Cache, affinity: Affinity, wanted: float) -> int | None:
    """Return the fewest replicas with affinity that reach ``wanted``; ``None`` if no number up to 1,024 does.

    Replicas in excess of the partitions, or of the models, would be idle.
    """
    most = min(MOST_REPLICAS, affinity.partitions, demand.models)
    return _fewest(lambda replicas: with_affinity(demand, cache, affinity, replicas).hit_rate >= wanted, most)


def replicas_for_traffic(
    demand: Demand, cache: Cache, affinity: Affinity | None, *, per_second: float, speed: Speed
) -> int | None:
    """Return the fewest replicas that keep up with ``per_second`` requests; ``None`` if no number up to 1,024 does.

    With affinity, one replica receives all requests for the most popular model, and those alone can overload it.
    """
    most = MOST_REPLICAS if affinity is None else min(MOST_REPLICAS, affinity.partitions)
    return _fewest(
        lambda replicas: utilisation(demand, cache, affinity, replicas, per_second=per_second, speed=speed) <= 1, most
    )


def utilisation(
    demand: Demand, cache: Cache, affinity: Affinity | None, replicas: int, *, per_second: float, speed: Speed
) -> float:
    """Return the fraction of its time that the busiest replica works; above 1, it cannot keep up.

    Args:
        affinity: assignment of models to replicas; ``None`` if requests go to any replica.
    """
    if affinity is None:
        look, busiest = outlook(demand, cache), 1 / replicas
    else:
        look, busiest = with_affinity(demand, cache, affinity, replicas), busiest_share(demand, replicas)
    loads = per_second * (1 - look.hit_rate) / replicas
    return per_second * busiest / speed.requests_per_second + loads * speed.load_seconds


def busiest_share(demand: Demand, replicas: int) -> float:
    """Return the share of requests at the replica of the most popular model, with affinity.

    The share is that of this model plus 1/N of the rest.
    """
    return demand.hottest + (1 - demand.hottest) / replicas


def _fewest(enough: Callable[[int], bool], most: int) -> int | None:
    """Return the first number from 1 to ``most`` that is enough, given that all after it are too; else ``None``."""
    candidates: Sequence[int] = range(1, most + 1)
    limit = 1
    # Search from the low end, because large numbers of replicas are seldom needed.
    while limit < most and not enough(limit):
        limit = min(most, limit * 2)
    found = bisect.bisect_left(candidates, 1, hi=limit, key=lambda replicas: int(enough(replicas)))
    return candidates[found] if found < limit or enough(limit) else None
