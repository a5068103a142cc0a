"""Expositions of metrics: Prometheus texts, read by its own client library and checked by its own tool."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from collections.abc import Iterable, Mapping

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from tests.builders import PATIENCE

Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by name and labels."""


class Exposition:
    """One answer to a scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: list[Metric] = list(text_string_to_metric_families(text))

    @classmethod
    def of(cls, *collectors: Collector) -> Exposition:
        """Return the exposition of these collectors."""
        registry = CollectorRegistry(auto_describe=False)
        for collector in collectors:
            registry.register(collector)
        return cls(generate_latest(registry).decode())

    @classmethod
    def at(cls, port: int) -> Exposition:
        """Return the exposition that is served on this port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
            return cls(answer.read().decode())

    @property
    def series(self) -> Series:
        """Every sample; a duplicate series is an assertion error."""
        found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in self.families:
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in found, f"{key} is told twice"
                found[key] = sample.value
        return found

    @property
    def names(self) -> set[str]:
        """Names of metrics, as queries use them: counters with ``_total``, histograms without ``_bucket``."""
        return {f"{family.name}{_SUFFIXES.get(family.type, '')}" for family in self.families}

    @property
    def falling(self) -> set[str]:
        """Metrics whose values may fall."""
        return {family.name for family in self.families if family.type in ("gauge", "info")}

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the samples of a metric by the values of its labels, in the order of the labels' names."""
        samples = [sample for family in self.families for sample in family.samples if sample.name == name]
        return {tuple(sample.labels[key] for key in sorted(sample.labels)): sample.value for sample in samples}

    def value(self, name: str, **labels: str) -> float:
        """Return the value of one series; 0 if the series is missing."""
        return self.series.get((name, frozenset(labels.items())), 0.0)


_SUFFIXES = {"counter": "_total"}


def fallen(before: Exposition, after: Exposition) -> list[object]:
    """Return the series that must not fall but have fallen."""
    now = after.series
    gauges = before.falling
    return [
        (key, value, now[key])
        for key, value in before.series.items()
        if key[0] not in gauges and key in now and now[key] < value
    ]


def faults_found(texts: Iterable[str]) -> str:
    """Return the faults that the tool of Prometheus reports; skip the test if the tool is missing."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on the PATH; the Debian package prometheus has it")
    found = ""
    for text in texts:
        result = subprocess.run(
            [promtool, "check", "metrics"], input=text.encode(), capture_output=True, check=False, timeout=60
        )
        found += (result.stdout + result.stderr).decode()
        assert result.returncode == 0 or found
    return found
