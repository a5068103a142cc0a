from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serving.domain.confidence import FALLBACK_LABEL, Confidence
from serving.domain.prediction import Fallback, ScoredLabel

SHARES = st.floats(0.0, 1.0)


def test_without_a_word_of_it_every_answer_is_believed_as_it_is() -> None:
    confidence = Confidence()
    assert (confidence.temperature, confidence.threshold, confidence.fallback) == (1.0, 0.0, FALLBACK_LABEL)
    assert confidence.fallback_of("a", 0.0, None) is None


@given(SHARES, SHARES, st.none() | SHARES)
def test_an_answer_falls_back_below_the_threshold_and_not_at_it(
    score: float, of_manifest: float, of_caller: float | None
) -> None:
    least = of_manifest if of_caller is None else of_caller
    expected = Fallback(ScoredLabel("a", score), least) if score < least else None
    assert Confidence(threshold=of_manifest).fallback_of("a", score, of_caller) == expected


@given(SHARES, SHARES)
def test_the_fallback_label_itself_never_falls_back(score: float, threshold: float) -> None:
    assert Confidence(fallback="none").fallback_of("none", score, threshold) is None
    assert Confidence().fallback_of(FALLBACK_LABEL, score, threshold) is None


def test_a_threshold_of_zero_asked_for_gives_every_answer_whatever_the_manifest_says() -> None:
    assert Confidence(threshold=0.9).fallback_of("a", 0.0, 0.0) is None


@pytest.mark.parametrize(
    "keys",
    [
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"temperature": 1e4},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"threshold": -0.1},
        {"threshold": 1.1},
        {"threshold": float("nan")},
        {"fallback": ""},
        {"fallback": "x" * 1025},
        {"treshold": 0.5},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Confidence.model_validate(keys)
