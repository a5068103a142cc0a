from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from serving.runtime.supervision.metrics.families import Family, collected, received
from serving.runtime.supervision.metrics.merging import Merging
from tests.exposition import Exposition


class Exported:
    """The metrics that one worker exports, set by a test."""

    def __init__(self, *metrics: Metric) -> None:
        self.metrics = metrics

    def collect(self) -> tuple[Metric, ...]:
        return self.metrics

    def describe(self) -> tuple[Metric, ...]:
        return ()


def sent(*metrics: Metric) -> list[Family]:
    """Return the families that the supervisor receives for these metrics of a worker."""
    return received(json.loads(json.dumps(collected([Exported(*metrics)]))))


def shown(merging: Merging, told: dict[int, list[Family]]) -> Exposition:
    for worker, families in told.items():
        merging.learn(worker, families)
    return Exposition.of(Exported(*(family.as_metric() for family in merging.merged(told))))


def counted(value: float, name: str = "intent_requests", **labels: str) -> Metric:
    metric = CounterMetricFamily(name, "Calls.", labels=list(labels))
    metric.add_metric(list(labels.values()), value)
    return metric


def gauged(name: str, value: float, **labels: str) -> Metric:
    metric = GaugeMetricFamily(name, "A state.", labels=list(labels))
    metric.add_metric(list(labels.values()), value)
    return metric


def asked(**counts: float) -> Metric:
    """Return a metric of the queries by model, for the busiest models."""
    metric = CounterMetricFamily("intent_model_requests", "Queries.", labels=["model"])
    for model, count in counts.items():
        metric.add_metric([model], count)
    return metric


# Counters


def test_counters_are_summed_by_their_labels() -> None:
    merging = Merging(20)
    told = {
        0: sent(counted(2, method="a"), counted(1, "intent_loads")),
        1: sent(counted(3, method="a"), counted(4, "intent_loads")),
    }
    shows = shown(merging, told)
    assert shows.value("intent_requests_total", method="a") == 5
    assert shows.value("intent_loads_total") == 5
    assert len(shows.families) == 2


def test_histograms_are_summed_in_every_bucket() -> None:
    merging = Merging(20)
    ones = [HistogramMetricFamily("intent_seconds", "Times.", labels=["code"]) for _ in range(2)]
    ones[0].add_metric(["OK"], [("1", 1), ("2", 3), ("+Inf", 4)], 7.5)
    ones[1].add_metric(["OK"], [("1", 10), ("2", 10), ("+Inf", 11)], 5.25)
    shows = shown(merging, {index: sent(one) for index, one in enumerate(ones)})
    assert [shows.value("intent_seconds_bucket", code="OK", le=le) for le in ("1", "2", "+Inf")] == [11, 13, 15]
    assert shows.value("intent_seconds_count", code="OK") == 15
    assert shows.value("intent_seconds_sum", code="OK") == 12.75


def test_metrics_without_a_type_are_sums_as_well() -> None:
    metrics = [Metric("nv_inference_count", "Documents.", "untyped") for _ in range(2)]
    for metric in metrics:
        metric.add_sample("nv_inference_count", {"model": "m", "version": "1"}, 3)
    shows = shown(Merging(20), {index: sent(metric) for index, metric in enumerate(metrics)})
    assert shows.value("nv_inference_count", model="m", version="1") == 6


def test_a_worker_that_died_takes_nothing_away() -> None:
    merging = Merging(20)
    shown(merging, {0: sent(counted(5, method="a"), counted(2, method="only here")), 1: sent(counted(7, method="a"))})
    merging.retire(0)
    shows = shown(merging, {1: sent(counted(8, method="a"))})
    assert shows.value("intent_requests_total", method="a") == 13
    assert shows.value("intent_requests_total", method="only here") == 2
    # The worker's successor counts from zero.
    shows = shown(merging, {0: sent(counted(1, method="a")), 1: sent(counted(8, method="a"))})
    assert shows.value("intent_requests_total", method="a") == 14


def test_a_worker_that_does_not_answer_is_in_the_sums_as_it_was() -> None:
    merging = Merging(20)
    told = {0: sent(counted(5), gauged("intent_requests_in_flight", 3)), 1: sent(counted(7))}
    assert shown(merging, told).value("intent_requests_total") == 12
    shows = shown(merging, {1: sent(counted(9))})
    assert shows.value("intent_requests_total") == 14
    assert shows.values("intent_requests_in_flight") == {}


def test_a_worker_that_dies_while_the_others_answer_counts_once() -> None:
    merging = Merging(20)
    merging.learn(0, sent(counted(5)))
    merging.retire(0)
    assert shown(merging, {1: sent(counted(7))}).value("intent_requests_total") == 12


def test_a_counter_that_a_worker_begins_anew_is_added() -> None:
    merging = Merging(20)
    shown(merging, {0: sent(counted(5)), 1: sent(counted(7))})
    assert shown(merging, {0: sent(counted(2)), 1: sent(counted(7))}).value("intent_requests_total") == 14
    assert shown(merging, {0: sent(counted(3)), 1: sent(counted(7))}).value("intent_requests_total") == 15


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0, 1e9), st.booleans()).map(lambda step: step), min_size=1, max_size=40
)


@given(steps=STEPS)
def test_no_sum_ever_falls_whoever_dies_and_comes_back(steps: list[tuple[int, float, bool]]) -> None:
    merging = Merging(20)
    values = {0: 0.0, 1: 0.0, 2: 0.0}
    due, former = 0.0, 0.0
    for worker, more, dies in steps:
        values[worker] += more
        due += more
        shows = shown(merging, {index: sent(counted(value)) for index, value in values.items()})
        now = shows.value("intent_requests_total")
        assert now >= former
        assert math.isclose(now, due, rel_tol=1e-9)
        former = now
        if dies:
            merging.retire(worker)
            values[worker] = 0.0


# Gauges


def test_gauges_follow_the_rule_of_their_name() -> None:
    values = {
        "intent_requests_in_flight": (2, 3, 5),
        "intent_release_revision": (4, 3, 4),
        "intent_memory_limit_bytes": (9, 9, 9),
        "intent_certificate_expiry_seconds": (70, 60, 60),
        "modelmesh_instance_used_bps": (4000, 2000, 3000),
    }
    told = {worker: sent(*(gauged(name, pair[worker]) for name, pair in values.items())) for worker in range(2)}
    shows = shown(Merging(20), told)
    assert {name: shows.value(name) for name in values} == {name: due for name, (_, _, due) in values.items()}


def test_what_is_of_one_process_and_what_has_no_rule_is_exported_for_each_worker() -> None:
    names = ["process_resident_memory_bytes", "intent_something_new"]
    told = {worker: sent(*(gauged(name, worker) for name in names)) for worker in range(2)}
    told[0] += sent(counted(3, "process_cpu_seconds"))
    shows = shown(Merging(20), told)
    for name in names:
        assert shows.values(name) == {("0",): 0, ("1",): 1}
    assert shows.values("process_cpu_seconds_total") == {("0",): 3}


def test_a_gauge_of_a_worker_that_died_is_gone() -> None:
    merging = Merging(20)
    shown(merging, {0: sent(gauged("process_open_fds", 1)), 1: sent(gauged("process_open_fds", 2))})
    merging.retire(0)
    assert shown(merging, {1: sent(gauged("process_open_fds", 2))}).values("process_open_fds") == {("1",): 2}


# The busiest


def test_of_the_busiest_those_are_exported_that_are_the_busiest_of_all() -> None:
    shows = shown(Merging(2), {0: sent(asked(a=10, b=6, c=1)), 1: sent(asked(c=8, b=7, d=5))})
    assert shows.values("intent_model_requests_total") == {("a",): 10, ("b",): 13}


def test_all_metrics_of_a_ranking_are_of_the_same_models() -> None:
    def exported(**documents: float) -> list[Family]:
        counts = CounterMetricFamily("intent_model_documents", "Documents.", labels=["model"])
        drift = GaugeMetricFamily("intent_model_drift", "Drift.", labels=["model", "signal"])
        for model, count in documents.items():
            counts.add_metric([model], count)
            drift.add_metric([model, "unknown"], 0.5)
        return sent(counts, drift)

    shows = shown(Merging(1), {0: exported(a=10, b=9), 1: exported(b=9, a=1)})
    assert shows.values("intent_model_documents_total") == {("b",): 18}
    assert shows.values("intent_model_drift") == {("b", "unknown"): 0.5}


def test_a_model_that_one_worker_exports_no_longer_keeps_what_was_counted_there() -> None:
    merging = Merging(2)
    name = "intent_model_requests_total"
    shown(merging, {0: sent(asked(a=10)), 1: sent(asked(a=7))})
    assert shown(merging, {0: sent(asked(a=11)), 1: sent(asked(b=9))}).value(name, model="a") == 18
    # A model that no worker exports is not exported, and returns with all its former counts.
    assert shown(merging, {0: sent(asked(c=99)), 1: sent(asked(b=9))}).values(name) == {("b",): 9, ("c",): 99}
    assert shown(merging, {0: sent(asked(a=200)), 1: sent(asked(b=9))}).value(name, model="a") == 207


def test_names_with_a_release_are_chosen_in_the_order_of_the_workers() -> None:
    def revisions(*names: str) -> list[Family]:
        metric = GaugeMetricFamily("intent_release_revision", "Revision.", labels=["model"])
        for name in names:
            metric.add_metric([name], 1)
        return sent(metric)

    shows = shown(Merging(3), {0: revisions("a", "b", "c"), 1: revisions("d", "b", "e")})
    assert set(shows.values("intent_release_revision")) == {("a",), ("d",), ("b",)}


def test_so_many_models_are_remembered() -> None:
    merging = Merging(1000, most_subjects=10)
    for number in range(100):
        shown(merging, {0: sent(asked(**{f"model-{number}": 5}))})
    assert shown(merging, {0: sent(asked(**{"model-99": 6, "model-0": 1}))}).values("intent_model_requests_total") == {
        ("model-99",): 6,
        ("model-0",): 1,
    }


def test_without_models_of_their_own_there_are_none() -> None:
    assert shown(Merging(0), {0: sent(asked(a=1))}).values("intent_model_requests_total") == {}
