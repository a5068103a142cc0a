"""Findings of the doctor about traffic: by itself, and in comparison with the baseline."""

from __future__ import annotations

from typing import Any

import pytest

from intentctl.doctor.live import drift_from_validation, findings_of
from serving.domain.answer_counts import CONFIDENCE_BINS, AnswerCounts
from serving.domain.manifest import Manifest
from serving.wire.traffic_client import ModelTraffic
from tests.intentctl.doctor import Model

LABELS = [f"label-{number}" for number in range(10)]


def sound(documents: int = 1000) -> dict[str, Any]:
    return {
        "documents": documents,
        "empty_documents": 0,
        "tokens": documents * 10,
        "unknown_tokens": documents // 5,
        "fallbacks": documents // 20,
        "confidence": (0,) * (CONFIDENCE_BINS - 1) + (documents,),
        "labels": dict.fromkeys(LABELS, documents // 10),
    }


def manifest(**keys: Any) -> Manifest:
    it = Model()
    it.name(LABELS)
    return Manifest.model_validate(it.manifest | {"Baseline": sound()} | keys)


def found(counts: dict[str, Any], it: Manifest, version: str = "1.0") -> dict[str, str]:
    """Return the severity of each check that has a finding."""
    traffic = ModelTraffic("m", version, AnswerCounts.model_validate(counts), 60.0)
    drift = drift_from_validation(it, traffic)
    return {finding.check: str(finding.severity) for finding in findings_of(it, traffic, drift)}


ONE_ANSWER = {"labels": {"label-0": 950, "label-1": 50}}
SHIFTED = {"labels": sound()["labels"] | {"label-0": 20, "label-1": 180}}
SURE_AND_UNSURE = {"confidence": (400,) + (0,) * 18 + (600,)}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {}),
        ({"unknown_tokens": 1000}, {"drift-unknown-tokens": "warning"}),
        ({"unknown_tokens": 4000}, {"drift-unknown-tokens": "error"}),
        ({"unknown_tokens": 6000}, {"drift-unknown-tokens": "error", "mostly-unknown": "error"}),
        ({"empty_documents": 50}, {"drift-empty-documents": "warning"}),
        ({"empty_documents": 300}, {"drift-empty-documents": "error", "many-empty": "warning"}),
        (SURE_AND_UNSURE, {"drift-confidence": "warning"}),
        (SHIFTED, {"drift-labels": "note"}),
        (ONE_ANSWER, {"drift-labels": "warning", "nearly-one-answer": "warning"}),
        ({"fallbacks": 600}, {"many-fallbacks": "warning"}),
    ],
)
def test_each_change_of_the_traffic_has_its_own_finding(changed: dict[str, Any], expected: dict[str, str]) -> None:
    assert found(sound() | changed, manifest()) == expected


def test_what_is_wrong_by_itself_needs_no_baseline() -> None:
    it = manifest(Baseline=None)
    assert found(sound() | {"unknown_tokens": 6000} | ONE_ANSWER, it) == {
        "mostly-unknown": "error",
        "nearly-one-answer": "warning",
    }
    assert found(sound(), it) == {}


def test_of_few_documents_nothing_more_is_said() -> None:
    assert found(sound(100) | {"unknown_tokens": 1000}, manifest()) == {"few-documents": "note"}


def test_what_another_copy_was_asked_is_not_held_against_this_ones_baseline() -> None:
    assert found(sound() | {"unknown_tokens": 4000}, manifest(), version="0.9") == {"other-version": "warning"}


def test_a_model_that_was_not_asked_has_no_traffic() -> None:
    (finding,) = findings_of(manifest(), None, None)
    assert (finding.check, finding.severity) == ("no-traffic", "note")
    assert drift_from_validation(manifest(), None) is None


def test_both_shares_are_told() -> None:
    it = manifest()
    traffic = ModelTraffic("m", "1.0", AnswerCounts.model_validate(sound() | {"unknown_tokens": 4000}), 60.0)
    (finding,) = findings_of(it, traffic, drift_from_validation(it, traffic))
    assert "is 40.0%; in validation, it was 2.0%" in finding.problem
