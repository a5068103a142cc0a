from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.domain.prediction import Prediction, Query
from tests.predictor.builders import model

LABELS = ["alpha", "oos", "gamma", "delta"]
WORDS = ["<unk>", "the", "red", "blue", "!"]
DOCUMENTS = ["the red", "blue !", "", "green the the", "red red blue"]


def asked(document: str, k: int = 0, of_caller: float | None = None, **confidence: object) -> Prediction:
    subject = model(WORDS, LABELS, 0, Confidence=confidence)
    (answer,) = subject.predict([Query("m", document, k, of_caller)])
    assert isinstance(answer, Prediction)
    return answer


def scores(document: str, **confidence: object) -> dict[str, float]:
    return {best.label: best.score for best in asked(document, len(LABELS), None, **confidence).best}


@given(st.sampled_from(DOCUMENTS), st.floats(0.05, 20.0))
@settings(max_examples=60)
def test_a_temperature_changes_scores_as_it_should_and_no_label(document: str, temperature: float) -> None:
    plain, scaled = scores(document), scores(document, temperature=temperature)
    assert math.fsum(scaled.values()) == pytest.approx(1.0, abs=1e-9)
    assert next(iter(scaled)) == next(iter(plain))
    exponentials = {label: score ** (1 / temperature) for label, score in plain.items()}
    expected = {label: value / math.fsum(exponentials.values()) for label, value in exponentials.items()}
    assert scaled == pytest.approx(expected, rel=1e-4, abs=1e-9)


@given(st.sampled_from(DOCUMENTS), st.none() | st.floats(0.0, 1.0), st.floats(0.0, 1.0))
@settings(max_examples=100)
def test_below_the_threshold_the_answer_is_the_fallback_label_with_its_own_probability(
    document: str, of_caller: float | None, of_manifest: float
) -> None:
    every = scores(document)
    best = max(every, key=every.__getitem__)
    answer = asked(document, 2, of_caller, threshold=of_manifest)
    least = of_manifest if of_caller is None else of_caller
    if every[best] >= least or best == "oos":
        assert (answer.label, answer.fallback) == (best, None)
        assert answer.score == every[best]
    else:
        assert answer.label == "oos"
        assert answer.score == pytest.approx(every["oos"])
        assert answer.fallback == ((best, every[best]), least)
    # The best labels are returned whatever the threshold.
    assert [scored.label for scored in answer.best] == sorted(every, key=lambda label: -every[label])[:2]


def test_a_fallback_label_that_is_none_of_the_models_own_has_no_probability() -> None:
    answer = asked("the red", threshold=1.0, fallback="nothing of that")
    assert (answer.label, answer.score, answer.response) == ("nothing of that", 0.0, '{"result": "nothing of that"}')
    assert answer.fallback is not None
    assert answer.fallback.best.label in LABELS


def test_each_query_of_a_batch_has_its_own_threshold() -> None:
    subject = model(WORDS, LABELS, 0, Confidence={"threshold": 1.0, "fallback": "else"})
    outcomes = subject.predict([Query("m", "the red", threshold=threshold) for threshold in (None, 0.0, 1.0)])
    assert [isinstance(outcome, Prediction) and outcome.label == "else" for outcome in outcomes] == [True, False, True]
