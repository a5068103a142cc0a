from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.engines.partitions import partition_of, partitions_before
from grpc_http2.client.servers.ring import PLACES
from intentctl.capacity.che import Cache, budget_for, characteristic_time, outlook
from intentctl.capacity.demand import Demand, Group, zipf
from intentctl.capacity.replicas import (
    Affinity,
    Speed,
    busiest_share,
    replicas_for_hit_rate,
    replicas_for_traffic,
    shares,
    utilisation,
    with_affinity,
)
from predictor.cache.residency import ResidentModels
from serving.domain.model_id import ModelId
from tests.builders import fingerprint_of
from tests.fakes.model_source import FakeModel

FILES = fingerprint_of(1)
MANY = 10**9
AFFINITY = Affinity()

requests_of = st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=1, max_size=60)
sizes_of = st.integers(min_value=1, max_value=1000)


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    requests = draw(requests_of)
    sizes = [draw(sizes_of) for _ in requests]
    return Demand.of(requests, sizes, budget=MANY)


def hit_rate(demand: Demand, budget: float, models: float = MANY) -> float:
    return outlook(demand, Cache(budget, models)).hit_rate


# Properties of every demand.


@given(demands(), st.floats(min_value=0.01, max_value=1e6), st.floats(min_value=1.0, max_value=10.0))
def test_a_hit_rate_is_a_share_and_more_memory_never_lowers_it(demand: Demand, budget: float, times: float) -> None:
    lower, higher = hit_rate(demand, budget), hit_rate(demand, budget * times)
    assert 0.0 <= lower <= higher + 1e-9
    assert higher <= 1.0


@given(demands())
def test_every_request_is_a_hit_exactly_when_all_models_fit(demand: Demand) -> None:
    assert hit_rate(demand, demand.size) == pytest.approx(1.0, abs=1e-12)
    assert outlook(demand, Cache(demand.size, MANY)).models == demand.models
    assert outlook(demand, Cache(demand.size * 0.99, MANY)).models < demand.models


@given(st.lists(st.tuples(st.floats(min_value=1e-6, max_value=1e6), sizes_of), min_size=1, max_size=60), st.randoms())
def test_the_order_of_models_is_of_no_account(models: list[tuple[float, int]], chance: random.Random) -> None:
    mixed = models.copy()
    chance.shuffle(mixed)
    one, other = (Demand.of(*zip(*each, strict=True), budget=MANY) for each in (models, mixed))
    assert hit_rate(one, one.size / 3) == pytest.approx(hit_rate(other, other.size / 3), rel=1e-9)


@given(demands(), st.floats(min_value=0.01, max_value=0.99))
def test_what_is_in_memory_fills_the_budget(demand: Demand, part: float) -> None:
    time = characteristic_time(demand.groups, [group.size for group in demand.groups], demand.size * part)
    filled = sum(-group.size * math.expm1(-group.rate * time) for group in demand.groups)
    assert filled == pytest.approx(demand.size * part, rel=1e-6)


@given(demands(), st.floats(min_value=0.01, max_value=0.99))
def test_the_budget_for_a_hit_rate_gives_that_hit_rate(demand: Demand, wanted: float) -> None:
    budget = budget_for(demand, wanted)
    assert budget is not None
    assert hit_rate(demand, budget) == pytest.approx(wanted, abs=1e-6)


@given(demands(), st.floats(min_value=0.05, max_value=0.95))
def test_the_bound_on_models_holds_as_that_on_bytes_does(demand: Demand, part: float) -> None:
    bounded = outlook(demand, Cache(MANY, demand.models * part))
    assert bounded.models <= demand.models * part * (1 + 1e-6)
    assert bounded.hit_rate <= hit_rate(demand, MANY)


@given(st.lists(st.floats(min_value=0.001, max_value=1000), min_size=2, max_size=200), st.floats(0.05, 0.95))
def test_models_taken_together_by_popularity_come_to_what_they_do_one_by_one(
    requests: list[float], part: float
) -> None:
    every = math.fsum(requests)
    together = Demand.of(requests, [1] * len(requests), budget=MANY)
    one_by_one = Demand(
        groups=tuple(Group(1, number / every, 1) for number in requests), models=len(requests), size=0, hottest=0
    )
    budget = len(requests) * part
    assert hit_rate(together, budget) == pytest.approx(hit_rate(one_by_one, budget), abs=1e-4)


def test_a_model_larger_than_the_budget_is_never_in_memory() -> None:
    demand = Demand.of([3, 1], [500, 10], budget=100)
    assert demand.refused == 1
    assert hit_rate(demand, 100) == 0.25
    assert budget_for(demand, 0.3) is None
    assert budget_for(demand, 0.25) == 10


def test_a_model_that_nobody_asks_for_takes_no_memory() -> None:
    asked = Demand.of([2, 1], [10, 10], budget=MANY)
    assert Demand.of([2, 0, 1], [10, 10, 10], budget=MANY) == asked


def test_all_alike_are_held_as_far_as_memory_goes() -> None:
    demand = Demand.of(zipf(1000, 0.0), [7] * 1000, budget=MANY)
    assert hit_rate(demand, 7 * 250) == pytest.approx(0.25)


# Replicas.


@given(demands(), st.floats(min_value=0.01, max_value=1.0), st.integers(min_value=1, max_value=64))
def test_with_affinity_replicas_are_at_least_about_as_good_as_one(demand: Demand, part: float, replicas: int) -> None:
    cache = Cache(demand.size * part, MANY)
    alone = outlook(demand, cache)
    look = with_affinity(demand, cache, AFFINITY, replicas)
    assert alone.hit_rate - 1e-9 <= look.hit_rate <= 1.0
    assert look.models <= demand.models * (1 + 1e-9)


def test_equal_parts_would_hold_as_much_as_one_predictor_with_all_the_memory() -> None:
    demand = Demand.of(zipf(100_000, 0.8), [1] * 100_000, budget=MANY)
    even = Affinity(partitions=10**9, places=10**9)
    look = with_affinity(demand, Cache(5_000, MANY), even, 4)
    assert look.hit_rate == pytest.approx(hit_rate(demand, 20_000), abs=1e-3)
    assert look.models == pytest.approx(20_000, rel=1e-2)


def test_parts_are_one_nth_on_average_and_wider_apart_with_fewer_partitions() -> None:
    for partitions in (16, 256, 4096):
        assert sum(shares(Affinity(partitions), 10_000, 3)) / len(shares(Affinity(partitions), 10_000, 3)) == (
            pytest.approx(1 / 3)
        )
    spreads = [max(shares(Affinity(partitions), 10_000, 3)) for partitions in (16, 256, 4096)]
    assert spreads == sorted(spreads, reverse=True)
    assert shares(AFFINITY, 10_000, 1) == [1.0] * len(shares(AFFINITY, 10_000, 1))


def test_the_replicas_for_a_hit_rate_reach_it_and_one_less_does_not() -> None:
    demand = Demand.of(zipf(2000, 1.0), [2] * 2000, budget=MANY)
    cache = Cache(400, MANY)
    needed = replicas_for_hit_rate(demand, cache, AFFINITY, 0.99)
    assert needed is not None
    assert with_affinity(demand, cache, AFFINITY, needed).hit_rate >= 0.99
    assert with_affinity(demand, cache, AFFINITY, needed - 1).hit_rate < 0.99
    assert replicas_for_hit_rate(demand, cache, AFFINITY, 0.0) == 1


def test_no_number_of_replicas_makes_room_for_a_model_that_fits_none() -> None:
    demand = Demand.of([1, 1], [500, 10], budget=100)
    assert replicas_for_hit_rate(demand, Cache(100, MANY), AFFINITY, 0.9) is None


def test_the_most_popular_model_bounds_what_affinity_can_share_out() -> None:
    demand = Demand.of([60, 20, 20], [1, 1, 1], budget=MANY)
    cache, speed = Cache(3, MANY), Speed(requests_per_second=1000, load_seconds=0.0)
    assert busiest_share(demand, 1) == 1.0
    assert busiest_share(demand, 4) == pytest.approx(0.7)
    assert replicas_for_traffic(demand, cache, AFFINITY, per_second=1400, speed=speed) == 4
    assert replicas_for_traffic(demand, cache, AFFINITY, per_second=2000, speed=speed) is None
    assert replicas_for_traffic(demand, cache, None, per_second=2000, speed=speed) == 2


def test_cold_loads_take_time_from_answers() -> None:
    demand = Demand.of(zipf(100, 0.0), [1] * 100, budget=MANY)
    speed = Speed(requests_per_second=1000, load_seconds=0.004)
    busy = utilisation(demand, Cache(50, MANY), None, 1, per_second=100, speed=speed)
    assert busy == pytest.approx(0.1 + 50 * 0.004)


def test_the_prediction_knows_the_partitions_and_the_ring_of_the_frontend() -> None:
    assert partitions_before("dns:///predictor:51002") == AFFINITY.partitions
    assert AFFINITY.places == PLACES


# Comparison with the product's own cache.


@dataclass(slots=True)
class Replica:
    """The cache of a predictor, used as for real requests but with fake models."""

    sizes: dict[ModelId, int]
    budget: int
    hits: int = 0
    misses: int = 0
    residents: ResidentModels[FakeModel] = field(init=False)

    def __post_init__(self) -> None:
        self.residents = ResidentModels(max_bytes=self.budget, max_models=100_000)

    def ask(self, model_id: ModelId) -> None:
        resident = self.residents.get(model_id)
        if resident is None:
            self.misses += 1
            size = self.sizes[model_id]
            resident = self.residents.admit(
                model_id, FakeModel(model_id, FILES, size), FILES, self.residents.reserve(size)
            )
        else:
            self.hits += 1
        self.residents.lease(resident).release()


def asked(ids: Sequence[ModelId], exponent: float, chance: random.Random) -> Iterator[ModelId]:
    sums = list(itertools.accumulate(zipf(len(ids), exponent)))
    while True:
        yield ids[bisect.bisect_left(sums, chance.random() * sums[-1])]


def simulated(replicas: Sequence[Replica], route: Callable[[ModelId], Replica], stream: Iterator[ModelId]) -> float:
    """Return the hit rate of 60,000 requests, after 30,000 that fill the caches."""
    for model_id in itertools.islice(stream, 30_000):
        route(model_id).ask(model_id)
    for replica in replicas:
        replica.hits = replica.misses = 0
    for model_id in itertools.islice(stream, 60_000):
        route(model_id).ask(model_id)
    hits = sum(replica.hits for replica in replicas)
    return hits / (hits + sum(replica.misses for replica in replicas))


def model_ids(number: int) -> list[ModelId]:
    return [ModelId(f"tenant-{index}") for index in range(number)]


# The standard deviation of a rate of 60,000 independent requests is 0.2 percentage points (at 50 %). Hits are not
# independent, which about doubles it; the error of the approximation itself is about as large. Streams are seeded.
TOLERANCE = 0.01


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [0.0, 0.6, 1.0, 1.4])
@pytest.mark.parametrize("held", [20, 200, 900])
def test_the_prediction_is_what_the_predictors_cache_does(
    exponent: float, held: int, figure: Callable[[str], None]
) -> None:
    ids = model_ids(1000)
    replica = Replica(dict.fromkeys(ids, 10), budget=10 * held)
    seen = simulated([replica], lambda _: replica, asked(ids, exponent, random.Random(held)))
    predicted = hit_rate(Demand.of(zipf(1000, exponent), [10] * 1000, budget=10 * held), 10 * held)
    figure(f"hit rate, Zipf {exponent:g}, {held} of 1,000 models held: predicted {predicted:.2%}, simulated {seen:.2%}")
    assert predicted == pytest.approx(seen, abs=TOLERANCE)


def test_the_prediction_holds_for_models_of_different_sizes() -> None:
    ids = model_ids(1000)
    chance = random.Random(1)
    sizes = {model_id: chance.choice((50, 400, 1500)) for model_id in ids}
    budget = sum(sizes.values()) // 5
    replica = Replica(sizes, budget)
    seen = simulated([replica], lambda _: replica, asked(ids, 0.9, chance))
    predicted = hit_rate(Demand.of(zipf(1000, 0.9), list(sizes.values()), budget=budget), budget)
    assert predicted == pytest.approx(seen, abs=TOLERANCE)


def ring(replicas: Sequence[Replica], affinity: Affinity, chance: random.Random) -> Callable[[ModelId], Replica]:
    """Return a function from a model to its replica, on a ring whose hashes are random."""
    owners = sorted((chance.random(), index % len(replicas)) for index in range(affinity.places * len(replicas)))
    places = [place for place, _ in owners]

    def owner(place: float) -> Replica:
        return replicas[owners[bisect.bisect_left(places, place) % len(owners)][1]]

    by_partition = [owner(chance.random()) for _ in range(affinity.partitions)]
    return lambda model_id: by_partition[partition_of(model_id, affinity.partitions)]


# Each ring gives the replicas different shares, and the prediction is the mean of all rings. In the case that depends
# most on the shares, 190 of 600, rates of single rings differ by one percentage point, the mean of eight by a third.
RINGS = 8


@pytest.mark.slow
@pytest.mark.parametrize(("tenants", "exponent", "held"), [(600, 0.0, 250), (600, 0.0, 190), (2000, 1.0, 200)])
def test_three_replicas_with_affinity_hold_what_is_predicted(
    tenants: int, exponent: float, held: int, figure: Callable[[str], None]
) -> None:
    rates = []
    for seed in range(RINGS):
        chance = random.Random(seed)
        # Random names: a checksum spreads names that end in consecutive numbers more evenly than chance would.
        ids = [ModelId(f"{chance.getrandbits(64):x}") for _ in range(tenants)]
        replicas = [Replica(dict.fromkeys(ids, 10), budget=10 * held) for _ in range(3)]
        rates.append(simulated(replicas, ring(replicas, AFFINITY, chance), asked(ids, exponent, chance)))
    seen = sum(rates) / RINGS
    demand = Demand.of(zipf(tenants, exponent), [10] * tenants, budget=10 * held)
    predicted = with_affinity(demand, Cache(10 * held, MANY), AFFINITY, 3).hit_rate
    figure(
        f"three replicas with affinity, {held} of {tenants:,} models each, Zipf {exponent:g}:"
        f" predicted {predicted:.2%}, simulated {seen:.2%} ({min(rates):.2%} to {max(rates):.2%})"
    )
    assert predicted == pytest.approx(seen, abs=TOLERANCE)


def test_three_replicas_without_affinity_hold_no_more_than_one(figure: Callable[[str], None]) -> None:
    ids = model_ids(600)
    chance = random.Random(3)
    replicas = [Replica(dict.fromkeys(ids, 10), budget=2500) for _ in range(3)]
    turns = itertools.cycle(replicas)
    seen = simulated(replicas, lambda _: next(turns), asked(ids, 0.0, chance))
    predicted = hit_rate(Demand.of(zipf(600, 0.0), [10] * 600, budget=2500), 2500)
    figure(f"three replicas in turn, 250 of 600 models each: predicted {predicted:.2%}, simulated {seen:.2%}")
    assert predicted == pytest.approx(seen, abs=TOLERANCE)


def test_a_hundred_thousand_models_become_few_enough_to_compute_with() -> None:
    demand = Demand.of(zipf(100_000, 1.0), [1] * 100_000, budget=MANY)
    assert len(demand.groups) < 1000
