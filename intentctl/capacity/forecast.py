"""The forecast that ``intentctl capacity`` reports, computed from its options."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from intentctl.capacity.che import Cache, Outlook, budget_for, outlook
from intentctl.capacity.demand import Demand
from intentctl.capacity.replicas import (
    Affinity,
    Speed,
    replicas_for_hit_rate,
    replicas_for_traffic,
    utilisation,
    with_affinity,
)

_MOST_ROWS: Final = 8


@dataclass(frozen=True, slots=True)
class Fleet:
    """Identical predictors behind one name."""

    replicas: int
    cache: Cache
    """Bounds of each replica."""
    speed: Speed
    """Speed of each replica."""
    affinity: Affinity


@dataclass(frozen=True, slots=True)
class Wanted:
    """Targets for the predictors."""

    requests_per_second: float
    hit_rate: float
    """Share of requests that find their model in memory, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Side:
    """Forecast for one number of replicas, with or without affinity."""

    hit_rate: float
    models_in_memory: float
    """Number of distinct models, over all replicas."""
    cold_loads_per_second: float
    """Loads of models that were not in memory, over all replicas."""
    utilisation: float
    """Fraction of its time that the busiest replica works; above 1, it cannot keep up."""


@dataclass(frozen=True, slots=True)
class Row:
    """Forecasts with and without affinity, side by side."""

    replicas: int
    with_affinity: Side
    without_affinity: Side


@dataclass(frozen=True, slots=True)
class Needs:
    """Number of replicas needed for each target; ``None`` if no number suffices."""

    for_hit_rate: int | None
    for_requests: int | None

    @property
    def for_both(self) -> int | None:
        """Larger of both numbers; ``None`` if either is ``None``."""
        if self.for_hit_rate is None or self.for_requests is None:
            return None
        return max(self.for_hit_rate, self.for_requests)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Forecast for one demand, fleet and set of targets."""

    demand: Demand
    fleet: Fleet
    wanted: Wanted
    rows: tuple[Row, ...]
    """Rows by number of replicas, including the fleet's own number and the numbers needed."""
    with_affinity: Needs
    without_affinity: Needs
    budget_of_one: float | None
    """Memory with which one predictor alone reaches the wanted hit rate, in bytes."""

    @property
    def asked(self) -> Row:
        """Row for the fleet's own number of replicas."""
        return next(row for row in self.rows if row.replicas == self.fleet.replicas)

    def as_dict(self) -> dict[str, Any]:
        """Return the forecast as JSON fields for scripts."""
        demand, fleet = self.demand, self.fleet
        return {
            "models": demand.models,
            "bytes_of_all_models": demand.size,
            "share_of_most_popular": demand.hottest,
            "models_larger_than_budget": demand.refused,
            "budget_bytes": round(fleet.cache.budget),
            "max_models": round(fleet.cache.models),
            "partitions": fleet.affinity.partitions,
            "replicas": fleet.replicas,
            "speed": asdict(fleet.speed),
            "wanted": asdict(self.wanted),
            "replicas_needed": {
                "with_affinity": _needs(self.with_affinity),
                "without_affinity": _needs(self.without_affinity),
            },
            "budget_bytes_of_one_for_hit_rate": None if self.budget_of_one is None else round(self.budget_of_one),
            "by_replicas": [asdict(row) for row in self.rows],
        }


def forecast(demand: Demand, fleet: Fleet, wanted: Wanted) -> Forecast:
    """Return the forecast for ``demand``."""
    cache, affinity, speed = fleet.cache, fleet.affinity, fleet.speed
    alone = outlook(demand, cache)
    with_it = Needs(
        replicas_for_hit_rate(demand, cache, affinity, wanted.hit_rate),
        replicas_for_traffic(demand, cache, affinity, per_second=wanted.requests_per_second, speed=speed),
    )
    without_it = Needs(
        1 if alone.hit_rate >= wanted.hit_rate else None,
        replicas_for_traffic(demand, cache, None, per_second=wanted.requests_per_second, speed=speed),
    )
    return Forecast(
        demand=demand,
        fleet=fleet,
        wanted=wanted,
        rows=tuple(_row(demand, fleet, wanted, replicas) for replicas in _of_interest(fleet, with_it, without_it)),
        with_affinity=with_it,
        without_affinity=without_it,
        budget_of_one=budget_for(demand, wanted.hit_rate),
    )


def _of_interest(fleet: Fleet, *needs: Needs) -> list[int]:
    """Return the numbers of replicas to report: all if few, else powers of two, the fleet's and those needed."""
    named = {fleet.replicas, *(number for need in needs for number in (need.for_hit_rate, need.for_requests) if number)}
    most = max(named)
    if most <= _MOST_ROWS:
        return list(range(1, most + 1))
    return sorted(named | {1 << power for power in range(most.bit_length())})


def _row(demand: Demand, fleet: Fleet, wanted: Wanted, replicas: int) -> Row:
    def side(look: Outlook, affinity: Affinity | None) -> Side:
        rate = wanted.requests_per_second
        return Side(
            hit_rate=look.hit_rate,
            models_in_memory=look.models,
            cold_loads_per_second=rate * (1 - look.hit_rate),
            utilisation=utilisation(demand, fleet.cache, affinity, replicas, per_second=rate, speed=fleet.speed),
        )

    return Row(
        replicas,
        side(with_affinity(demand, fleet.cache, fleet.affinity, replicas), fleet.affinity),
        side(outlook(demand, fleet.cache), None),
    )


def _needs(needs: Needs) -> dict[str, int | None]:
    return asdict(needs) | {"for_both": needs.for_both}
