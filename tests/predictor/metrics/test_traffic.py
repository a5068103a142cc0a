from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from predictor.cache.residency import Resident
from predictor.inference.traffic_registry import TrafficRegistry
from predictor.metrics.traffic import TrafficCollector
from predictor.model.intent_model import IntentModel
from serving.domain.answer_counts import CONFIDENCE_BINS, AnswerCounts
from serving.domain.model_id import ModelId
from tests.builders import fingerprint_of
from tests.predictor.builders import model

LABELS = [f"label {number}" for number in range(151)]

Sample = tuple[str, Mapping[str, str], float]


def text_of(collector: TrafficCollector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def families(collector: TrafficCollector) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text_of(collector))}


def values(collector: TrafficCollector, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a metric by the values of its labels."""
    samples = [sample for family in families(collector).values() for sample in family.samples if sample.name == name]
    return {tuple(sample.labels[key] for key in sorted(sample.labels)): sample.value for sample in samples}


def baseline(documents: int = 1000) -> AnswerCounts:
    return AnswerCounts(
        documents=documents,
        tokens=documents,
        confidence=(0,) * (CONFIDENCE_BINS - 1) + (documents,),
        labels={LABELS[0]: documents},
    )


SAMPLE = model(["<unk>", "a"], LABELS, 0, Baseline=baseline().model_dump(mode="json"))


def stay(name: str, mark: int, it: IntentModel = SAMPLE) -> Resident[IntentModel]:
    return Resident(ModelId(name), it, fingerprint_of(mark), mark, 1, 0.0)


def ask(registry: TrafficRegistry, resident: Resident[IntentModel], times: int, winner: int = 0) -> None:
    counter = registry.counter_of(resident)
    assert counter is not None
    for _ in range(times):
        counter.count(2, 1, winner, 0.97, is_empty=False, fell_back=True)


def test_what_was_counted_is_told_of_all_models_and_of_the_busiest() -> None:
    registry = TrafficRegistry(8)
    for number, times in enumerate((3, 1, 2), start=1):
        ask(registry, stay(f"m{number}", number), times)
    collector = TrafficCollector(registry, 2)
    assert values(collector, "intent_documents_total") == {(): 6}
    assert values(collector, "intent_model_documents_total") == {("m1",): 3, ("m3",): 2}
    assert values(collector, "intent_model_tokens_total") == {("m1",): 6, ("m3",): 4}
    assert values(collector, "intent_model_unknown_tokens_total") == {("m1",): 3, ("m3",): 2}
    assert values(collector, "intent_model_fallbacks_total") == {("m1",): 3, ("m3",): 2}
    assert values(collector, "intent_model_empty_documents_total") == {("m1",): 0, ("m3",): 0}
    assert values(collector, "intent_model_labels_total") == {(LABELS[0], "m1"): 3, (LABELS[0], "m3"): 2}


def test_the_histogram_of_confidence_counts_up_to_each_bound() -> None:
    registry = TrafficRegistry(8)
    counter = registry.counter_of(stay("m", 1))
    assert counter is not None
    for score in (0.01, 0.06, 0.97, 1.0):
        counter.count(1, 0, 0, score, is_empty=False, fell_back=False)
    buckets = values(TrafficCollector(registry, 1), "intent_model_confidence_bucket")
    assert len(buckets) == CONFIDENCE_BINS
    assert (buckets["0.05", "m"], buckets["0.1", "m"], buckets["0.95", "m"], buckets["+Inf", "m"]) == (1, 2, 2, 4)
    assert values(TrafficCollector(registry, 1), "intent_model_confidence_sum") == {("m",): pytest.approx(2.04)}
    assert values(TrafficCollector(registry, 1), "intent_confidence_count") == {(): 4}


def test_only_the_ten_most_frequent_labels_of_a_model_are_told() -> None:
    registry = TrafficRegistry(8)
    for winner in range(20):
        ask(registry, stay("m", 1), 1 + winner, winner)
    told = values(TrafficCollector(registry, 1), "intent_model_labels_total")
    assert told == {(LABELS[winner], "m"): 1 + winner for winner in range(10, 20)}


def test_drift_is_told_where_there_is_a_baseline_and_enough_was_asked() -> None:
    registry = TrafficRegistry(8)
    ask(registry, stay("m", 1), 500, winner=1)
    without = model(["<unk>", "a"], LABELS, 0)
    ask(registry, stay("without", 2, without), 500)
    ask(registry, stay("young", 3), 10)
    collector = TrafficCollector(registry, 8)
    verdicts = values(collector, "intent_model_drift_verdict")
    assert verdicts == {
        ("m", "unknown_tokens"): 2,
        ("m", "empty_documents"): 0,
        ("m", "confidence"): 0,
        ("m", "labels"): 2,
    }
    assert values(collector, "intent_model_drift")["m", "unknown_tokens"] == pytest.approx(0.5)


def test_ten_thousand_tenants_make_at_most_two_thousand_series(figure: Callable[[str], None]) -> None:
    registry = TrafficRegistry(10_000)
    for number in range(10_000):
        for winner in range(12 if number % 100 == 0 else 1):
            ask(registry, stay(f"tenant-{number}", number + 1), 20, winner)
    series = [sample for family in families(TrafficCollector(registry, 20)).values() for sample in family.samples]
    figure(f"10,000 tenants: {len(series)} series of metrics")
    assert 20 * 40 < len(series) <= 2000
    assert values(TrafficCollector(registry, 20), "intent_documents_total") == {(): 20 * (100 * 12 + 9900)}


def test_a_model_of_its_own_has_none_where_none_is_wanted() -> None:
    registry = TrafficRegistry(8)
    ask(registry, stay("m", 1), 1)
    assert {name for name in families(TrafficCollector(registry, 0)) if name.startswith("intent_model")} == set()


def test_no_counter_falls_when_models_replace_each_other_among_the_busiest_and_in_the_registry() -> None:
    registry = TrafficRegistry(3)
    collector = TrafficCollector(registry, 1)
    before: dict[tuple[str, ...], float] = {}
    for number in range(1, 9):
        ask(registry, stay(f"m{number % 5}", number), number)
        now = {
            (name, *labels): value
            for name in ("intent_documents_total", "intent_confidence_bucket", "intent_tokens_total")
            for labels, value in values(collector, name).items()
        }
        assert all(now[key] >= value for key, value in before.items())
        before = now


def test_labels_of_any_script_and_with_quotes_are_told_as_they_are() -> None:
    odd = ['with "quotes"', "new\nline", "back\\slash", "héllo 你好"]
    registry = TrafficRegistry(8)
    resident = stay("m", 1, model(["<unk>", "a"], odd, 0))
    for winner in range(len(odd)):
        ask(registry, resident, 1, winner)
    assert {label for label, _ in values(TrafficCollector(registry, 1), "intent_model_labels_total")} == set(odd)


def test_the_tool_of_prometheus_finds_no_fault(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on the PATH; the Debian package prometheus has it")
    registry = TrafficRegistry(8)
    ask(registry, stay("m", 1), 500)
    told = text_of(TrafficCollector(registry, 8)).encode()
    result = subprocess.run([promtool, "check", "metrics"], input=told, capture_output=True, check=False, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
