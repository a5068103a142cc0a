from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.calibration import Numbers, choose_threshold, fit_temperature


def drawn(temperature: float, rows: int = 20_000) -> tuple[Numbers, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return logits, and classes drawn with the probabilities that the logits give at ``temperature``."""
    random = np.random.default_rng(7)
    logits = random.normal(scale=3.0, size=(rows, 5))
    noise = random.gumbel(size=logits.shape)
    return logits, (logits / temperature + noise).argmax(axis=1)


def mean_loss(logits: Numbers, classes: np.ndarray[tuple[int], np.dtype[np.int64]], temperature: float) -> float:
    scaled = logits / temperature
    probabilities = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    return float(-np.log(probabilities[np.arange(len(classes)), classes]).mean())


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_the_classes_were_drawn_with_is_found(temperature: float) -> None:
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.05)


def test_no_other_temperature_fits_better() -> None:
    logits, classes = drawn(1.7, rows=500)
    found = fit_temperature(logits, classes)
    least = mean_loss(logits, classes, found)
    assert all(mean_loss(logits, classes, found * factor) >= least for factor in (0.5, 0.9, 1.1, 2.0))


def test_few_answers_that_are_all_right_leave_a_doubt() -> None:
    logits = 10.0 * np.eye(3)
    scaled = logits / fit_temperature(logits, np.arange(3))
    score = np.exp(scaled[0, 0]) / np.exp(scaled[0]).sum()
    assert score == pytest.approx(1 - 1 / 5, abs=0.001)


def test_answers_that_are_never_right_have_the_highest_temperature() -> None:
    assert fit_temperature(np.eye(3), np.array([1, 2, 0])) == pytest.approx(20.0, rel=0.01)


def test_few_documents_give_a_low_threshold() -> None:
    scores = np.array([0.8, 0.9, 0.99])
    assert choose_threshold(scores, scores > 0, 0.01) == pytest.approx(0.03 * 0.8)


SCORES = st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=60)


@given(SCORES, st.floats(0.0, 1.0))
@settings(max_examples=200)
def test_no_more_is_given_up_than_may_be_and_hardly_less(rows: list[tuple[float, bool]], given_up: float) -> None:
    scores, right = np.array([score for score, _ in rows]), np.array([is_right for _, is_right in rows])
    threshold = choose_threshold(scores, right, given_up)
    allowed = given_up * len(rows)
    of_right = sorted(scores[right])
    assert np.count_nonzero(right & (scores < threshold)) <= allowed
    if len(of_right) > allowed:
        assert ([0.0, *of_right])[int(allowed)] <= threshold <= of_right[int(allowed)]
    else:
        assert threshold == 0.0
