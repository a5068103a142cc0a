from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.answers import Answer
from evaluation.evaluation import Labelled, evaluate
from evaluation.metrics import Confusion
from tests.evaluation.builders import answers_of, fell_back, plain

LABELS = frozenset({"music", "weather"})

ROWS = (
    Labelled("sun", "weather"),
    Labelled("rain", "weather"),
    Labelled("song", "music"),
    Labelled("blues", "music"),
    Labelled("snow", "skiing"),
    Labelled("zebra", "oos"),
    Labelled("gravel", "oos"),
)
ANSWERS = (
    plain("weather", 0.9),
    fell_back("weather", 0.4),
    plain("music", 0.8),
    plain("weather", 0.7),
    plain("weather", 0.6),
    fell_back("music", 0.3),
    plain("music", 0.95),
)


def test_every_figure_of_a_few_rows_is_what_one_counts() -> None:
    outcome = evaluate(ROWS, answers_of(ANSWERS, labels=LABELS, threshold=0.5), ["oos"])
    assert (outcome.rows, outcome.in_scope, outcome.out_of_scope) == (7, 5, 2)
    assert outcome.unknown_labels == {"skiing": 1}
    assert outcome.accuracy == pytest.approx(3 / 7)
    assert outcome.accuracy_in_scope == pytest.approx(2 / 5)
    assert outcome.accuracy_in_scope_without_threshold == pytest.approx(3 / 5)
    assert outcome.out_of_scope_recall == pytest.approx(1 / 2)
    assert outcome.out_of_scope_precision == pytest.approx(1 / 2)
    assert outcome.answered_out_of_scope == outcome.fallen_back == pytest.approx(2 / 7)
    # music 2*1/(2+2), oos 2*1/(2+2), skiing 0, weather 2*1/(2+3).
    assert outcome.macro_f1 == pytest.approx((0.5 + 0.5 + 0 + 0.4) / 4)
    # Each confidence is in a separate bin: 0.9, 0.8 and 0.4 right, 0.7 and 0.6 wrong.
    assert outcome.expected_calibration_error == pytest.approx((0.1 + 0.2 + 0.6 + 0.7 + 0.6) / 5)
    assert outcome.confusions[0] == Confusion("music", "weather", 1)
    assert [mistake.text for mistake in outcome.mistakes] == ["gravel", "blues", "snow", "rain"]
    in_force = next(point for point in outcome.threshold_curve if point.threshold == 0.5)
    assert in_force.in_scope_accuracy == outcome.accuracy_in_scope
    assert in_force.out_of_scope_recall == outcome.out_of_scope_recall
    assert outcome.threshold_curve[0].in_scope_accuracy == outcome.accuracy_in_scope_without_threshold


def test_labels_that_mean_out_of_scope_are_one() -> None:
    rows = [Labelled("a", "oos"), Labelled("b", "other"), Labelled("c", "none of it")]
    answers = answers_of([fell_back("x", fallback="other"), plain("oos"), plain("x")], fallback="other")
    outcome = evaluate(rows, answers, ["oos", "none of it"])
    assert outcome.in_scope == 0
    assert outcome.out_of_scope_recall == pytest.approx(2 / 3)
    assert outcome.accuracy == pytest.approx(2 / 3)
    assert outcome.accuracy_in_scope is outcome.expected_calibration_error is None
    assert outcome.confusions == (Confusion("other", "x", 1),)


def test_a_row_in_scope_whose_best_label_is_a_learned_class_of_out_of_scope_is_wrong() -> None:
    outcome = evaluate([Labelled("sun", "weather")], answers_of([plain("oos", 0.9)]), ["oos"])
    assert outcome.accuracy_in_scope == outcome.accuracy_in_scope_without_threshold == 0
    assert (outcome.answered_out_of_scope, outcome.fallen_back) == (1, 0)


def test_labels_that_nobody_tells_are_not_called_unknown() -> None:
    assert evaluate(ROWS, answers_of(ANSWERS, labels=None), ["oos"]).unknown_labels is None


@pytest.mark.parametrize("scores", [[0.0] * 7, [0.5] * 6 + [17.0], [0.5] * 6 + [-1.0]])
def test_without_probabilities_there_is_no_calibration(scores: list[float]) -> None:
    answers = [answer._replace(score=score) for answer, score in zip(ANSWERS, scores, strict=True)]
    outcome = evaluate(ROWS, answers_of(answers), ["oos"])
    assert outcome.expected_calibration_error is None
    assert outcome.reliability == ()
    assert outcome.threshold_curve == ()
    assert outcome.accuracy == pytest.approx(3 / 7)


LABEL = st.sampled_from(["a", "b", "c", "oos"])
ANY_ANSWER = st.builds(
    lambda best, score, threshold: (
        fell_back(best, score) if score < threshold and best != "oos" else plain(best, score)
    ),
    LABEL,
    st.floats(0, 1),
    st.just(0.5),
)


@given(st.lists(st.tuples(LABEL, ANY_ANSWER), min_size=1, max_size=40))
def test_any_answers_make_figures_that_fit_each_other_and_json(rows: list[tuple[str, Answer]]) -> None:
    labelled = [Labelled(str(number), label) for number, (label, _) in enumerate(rows)]
    outcome = evaluate(labelled, answers_of([answer for _, answer in rows], threshold=0.5), ["oos"])
    inside, outside = outcome.in_scope, outcome.out_of_scope
    right = (outcome.accuracy_in_scope or 0) * inside + (outcome.out_of_scope_recall or 0) * outside
    assert outcome.accuracy * len(rows) == pytest.approx(right)
    assert len(outcome.mistakes) == sum(each.rows for each in outcome.confusions) == len(rows) - round(right)
    assert sum(each.support for each in outcome.labels) == len(rows)
    assert sum(each.rows for each in outcome.reliability) in (0, inside)
    assert (outcome.accuracy_in_scope or 0) <= (outcome.accuracy_in_scope_without_threshold or 0)
    told = outcome.as_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
