from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from serving.telemetry.busiest import BusiestCounts

KEYS = st.lists(st.sampled_from("abcdefghij"), max_size=200)


@given(KEYS, st.integers(1, 6), st.integers(1, 6))
def test_no_count_that_is_told_ever_falls_and_none_is_too_small(keys: list[str], places: int, limit: int) -> None:
    counts = BusiestCounts(places)
    truth: Counter[str] = Counter()
    told: dict[str, int] = {}
    for number, key in enumerate(keys, start=1):
        counts.count(key)
        truth[key] += 1
        now = dict(counts.busiest(limit))
        assert len(now) <= min(places, limit)
        for name, count in now.items():
            assert count >= told.get(name, 0)
            assert truth[name] <= count <= truth[name] + number // places
        told.update(now)


@given(KEYS, st.integers(1, 6))
def test_who_has_more_than_its_share_of_the_places_is_among_them(keys: list[str], places: int) -> None:
    counts = BusiestCounts(places)
    for key in keys:
        counts.count(key)
    held = dict(counts.busiest(places))
    assert {key for key, count in Counter(keys).items() if count > len(keys) / places} <= held.keys()


def test_who_takes_whose_place_is_told() -> None:
    counts = BusiestCounts(2)
    assert [counts.count(key) for key in ("a", "a", "b", "a", "c", "b")] == [None, None, None, None, "b", "c"]


def test_the_busiest_of_a_hundred_thousand_tenants_are_found(figure: Callable[[str], None]) -> None:
    chance = random.Random(1)
    tenants = [f"tenant-{number}" for number in range(100_000)]
    asked = chance.choices(tenants, [1 / (number + 1) for number in range(len(tenants))], k=200_000)
    counts = BusiestCounts()
    for tenant in asked:
        counts.count(tenant)
    truth = Counter(asked)
    found = counts.busiest(20)
    right = {tenant for tenant, _ in truth.most_common(20)} & {tenant for tenant, _ in found}
    most = max((count - truth[tenant]) / truth[tenant] for tenant, count in found)
    figure(
        f"busiest of 100,000 tenants in 1,024 places: {len(right)} of 20 found, counts too large by {most:.1%} at most"
    )
    assert len(right) >= 19
    assert most <= 0.1
