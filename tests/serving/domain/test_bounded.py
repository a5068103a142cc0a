from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from serving.domain.answer_counts import CONFIDENCE_BINS
from serving.domain.errors import InvalidManifest, InvalidRelease
from serving.domain.manifest import Manifest
from serving.domain.releases.release import MAX_LABELS, Release
from tests.serving.refusals import refused

MANY = 30_000
KEYS = {f"{number:x}": 0 for number in range(MANY)}
NUMBERS = ["x"] * MANY

MANIFEST: dict[str, Any] = {"Algorithm": "intent-classification", "classes": {"0": "a"}}
RELEASE: dict[str, Any] = {"revision": 1, "stable": "1"}

MOST_FAULTS = 10_000
"""Each fault takes up to a kilobyte."""


def faults_of(error: BaseException) -> int:
    assert isinstance(error.__cause__, ValidationError)
    return error.__cause__.error_count()


@pytest.mark.parametrize(
    "part",
    [
        {"classes": KEYS},
        {"Files": KEYS},
        {"Files": {str(number): KEYS for number in range(3)}},
        {"Confidence": KEYS},
        {"Example": KEYS},
        {"Baseline": KEYS},
        {"Baseline": {"labels": dict.fromkeys(KEYS, "many")}},
        {"Baseline": {"confidence": NUMBERS}},
        {"OpenInference": KEYS},
        {"OpenInference": {"shape": NUMBERS}},
    ],
    ids=lambda part: json.dumps(part)[:24],
)
def test_a_manifest_with_many_faults_is_refused_for_few_of_them(part: dict[str, Any]) -> None:
    with refused(InvalidManifest) as caught:
        Manifest.parse(json.dumps(MANIFEST | part).encode())
    assert faults_of(caught.value) <= MOST_FAULTS


@pytest.mark.parametrize(
    "part", [KEYS, {"labels": KEYS}, {"history": NUMBERS}, {"canary": KEYS}, {"history": [KEYS]}], ids=range(5)
)
def test_a_release_with_many_faults_is_refused_for_few_of_them(part: dict[str, Any]) -> None:
    with refused(InvalidRelease) as caught:
        Release.parse(json.dumps(RELEASE | part).encode())
    assert faults_of(caught.value) <= MOST_FAULTS


def test_counts_of_many_labels_are_read() -> None:
    labels = {f"label {number}": number for number in range(MANY)}
    baseline = {"labels": labels, "confidence": [1] * CONFIDENCE_BINS}
    read = Manifest.parse(json.dumps(MANIFEST | {"Baseline": baseline}).encode()).baseline
    assert read is not None
    assert read.labels == labels


def test_a_release_with_as_many_labels_as_may_be_is_read() -> None:
    labels = {f"label-{number}": "1" for number in range(MAX_LABELS)}
    assert Release.parse(json.dumps(RELEASE | {"labels": labels}).encode()).labels == labels
