from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import HistogramMetricFamily

from serving.telemetry.histogram import Histogram

BOUNDS = (0.1, 1.0, 10.0)


def told(histogram: Histogram, *, unit: float = 1.0) -> dict[str, float]:
    family = HistogramMetricFamily("seconds", "Of tests.", labels=["method"])
    histogram.add_to(family, ["m"], unit=unit)
    return {sample.labels.get("le", sample.name): sample.value for sample in family.samples}


def test_values_are_counted_up_to_each_bound_and_bounds_are_within() -> None:
    histogram = Histogram(BOUNDS)
    for value in (0.05, 0.1, 0.5, 10.0, 11.0):
        histogram.observe(value)
    assert told(histogram) == {
        "0.1": 2,
        "1": 3,
        "10": 4,
        "+Inf": 5,
        "seconds_count": 5,
        "seconds_sum": pytest.approx(21.65),
    }


def test_another_unit_changes_bounds_and_sum_and_no_count() -> None:
    histogram = Histogram(BOUNDS)
    histogram.observe(0.25)
    assert told(histogram, unit=1000.0) == {
        "100": 0,
        "1000": 1,
        "10000": 1,
        "+Inf": 1,
        "seconds_count": 1,
        "seconds_sum": 250,
    }


@given(st.lists(st.floats(0, 1e6)), st.lists(st.floats(0.001, 1e5), min_size=1, unique=True).map(sorted))
def test_each_bucket_has_what_is_no_larger(values: list[float], bounds: list[float]) -> None:
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    counted = list(itertools.accumulate(histogram.counts))
    assert counted == [*(sum(value <= bound for value in values) for bound in bounds), len(values)]
    assert histogram.total == pytest.approx(sum(values))
