"""Several predictors behind one name: with affinity each model is asked of one of them, without it of any.

Without affinity every replica meets the same demand, only slower, and comes to hold the same models: more replicas take
more requests and hold no more. With affinity each meets a part of the models, so that N hold N times as many, as far as
the parts are equal. They are not quite: models are hashed to partitions, and partitions to stretches of a ring of which
each replica has many at random. What that costs is predicted too.
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
"""More are not looked at."""
_QUANTILES: Final = 15


@dataclass(frozen=True, slots=True)
class Affinity:
    """How models find their replica."""

    partitions: int = 1024
    """Models are hashed to so many: the frontend's ``--partitions``, and what it takes for several replicas."""
    places: int = 1024
    """Of each replica on the ring: as the frontend's channel sets it."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What one replica can do. It answers and loads in one process, so that either takes time from the other."""

    requests_per_second: float
    """For models in memory."""
    load_seconds: float
    """Of one model."""


def shares(affinity: Affinity, models: int, replicas: int) -> list[float]:
    """Return parts of the models that a replica may have, each as probable as the others; their mean is 1/N.

    A hash deals models to partitions, partitions to stretches and stretches to replicas, each as if by lot. With N
    replicas, dealing k things makes the part of one vary by a share of ``sqrt((N - 1) / k)`` of itself, and what the
    three vary by adds up as squares.
    """
    squared = (replicas - 1) * (1 / models + 1 / affinity.partitions + 1 / (affinity.places * replicas))
    # Parts are never negative, as with a logarithmic normal distribution.
    spread = NormalDist(0.0, math.sqrt(math.log1p(squared))) if squared else None
    parts = [math.exp(spread.inv_cdf((number + 0.5) / _QUANTILES)) if spread else 1.0 for number in range(_QUANTILES)]
    mean = fmean(parts)
    return [min(1.0, part / mean / replicas) for part in parts]


def with_affinity(demand: Demand, cache: Cache, affinity: Affinity, replicas: int) -> Outlook:
    """Return what ``replicas`` predictors with ``cache`` each come to together."""
    if replicas == 1:
        return outlook(demand, cache)
    parts = shares(affinity, demand.models, replicas)
    # A part of the models in the whole of the memory is as all of them in so many times the memory.
    looks = [outlook(demand, Cache(cache.budget / part, cache.models / part)) for part in parts]
    whole = math.fsum(parts)
    return Outlook(
        hit_rate=math.fsum(part * look.hit_rate for part, look in zip(parts, looks, strict=True)) / whole,
        models=math.fsum(part * look.models for part, look in zip(parts, looks, strict=True)) / whole,
    )


def replicas_for_hit_rate(demand: Demand, cache: Cache, affinity: Affinity, wanted: float) -> int | None:
    """Return the fewest replicas with affinity that come to ``wanted``; ``None`` where none up to 1,024 do.

    More than there are partitions, or models, would have nothing to do.
    """
    most = min(MOST_REPLICAS, affinity.partitions, demand.models)
    return _fewest(lambda replicas: with_affinity(demand, cache, affinity, replicas).hit_rate >= wanted, most)


def replicas_for_traffic(
    demand: Demand, cache: Cache, affinity: Affinity | None, *, per_second: float, speed: Speed
) -> int | None:
    """Return the fewest replicas that keep up with ``per_second`` requests; ``None`` where none up to 1,024 do.

    With affinity all requests for the most popular model go to one replica, which alone can be too many.
    """
    most = MOST_REPLICAS if affinity is None else min(MOST_REPLICAS, affinity.partitions)
    return _fewest(
        lambda replicas: utilisation(demand, cache, affinity, replicas, per_second=per_second, speed=speed) <= 1, most
    )


def utilisation(
    demand: Demand, cache: Cache, affinity: Affinity | None, replicas: int, *, per_second: float, speed: Speed
) -> float:
    """Return which part of its time the busiest replica works; above 1 it does not keep up.

    Args:
        affinity: ``None``: requests go to any replica.
    """
    if affinity is None:
        look, busiest = outlook(demand, cache), 1 / replicas
    else:
        look, busiest = with_affinity(demand, cache, affinity, replicas), busiest_share(demand, replicas)
    loads = per_second * (1 - look.hit_rate) / replicas
    return per_second * busiest / speed.requests_per_second + loads * speed.load_seconds


def busiest_share(demand: Demand, replicas: int) -> float:
    """Return the share of requests, with affinity, at the replica of the most popular model: that and its part."""
    return demand.hottest + (1 - demand.hottest) / replicas


def _fewest(enough: Callable[[int], bool], most: int) -> int | None:
    """Return the first of 1 to ``most`` that is enough, as all after it are."""
    candidates: Sequence[int] = range(1, most + 1)
    limit = 1
    # From the low end: large numbers of replicas are seldom needed.
    while limit < most and not enough(limit):
        limit = min(most, limit * 2)
    found = bisect.bisect_left(candidates, 1, hi=limit, key=lambda replicas: int(enough(replicas)))
    return candidates[found] if found < limit or enough(limit) else None
