from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.comparison import Comparison, LabelTally, Verdict, compare
from evaluation.evaluation import Labelled
from evaluation.mcnemar import mcnemar_p_value
from tests.evaluation.builders import answers_of, fell_back, plain

LABEL = st.sampled_from(["a", "b", "c", "oos"])
TRIPLES = st.lists(st.tuples(LABEL, LABEL, LABEL), min_size=1, max_size=40)


def compared(triples: list[tuple[str, str, str]]) -> Comparison:
    """Compare the answers of two models: each triple is the label and the answers of A and B."""
    rows = [Labelled(f"text {number}", label) for number, (label, _, _) in enumerate(triples)]
    of_a, of_b = (answers_of([plain(triple[place]) for triple in triples]) for place in (1, 2))
    return compare(rows, of_a, of_b, ["oos"])


def test_rows_are_counted_by_who_is_right() -> None:
    outcome = compared([("a", "a", "a"), ("a", "b", "a"), ("a", "a", "b"), ("b", "a", "b"), ("c", "a", "b")])
    assert (outcome.both_right, outcome.wins, outcome.losses, outcome.both_wrong) == (1, 2, 1, 1)
    assert outcome.agreement == 0.2
    assert (outcome.accuracy_a, outcome.accuracy_b) == (0.4, 0.6)
    assert outcome.labels == (LabelTally("b", 1, 0), LabelTally("a", 1, 1))
    assert [each.text for each in outcome.differences] == ["text 2", "text 1", "text 3", "text 4"]


@pytest.mark.parametrize(
    ("wins", "losses", "verdict"),
    [(6, 0, Verdict.BETTER), (0, 6, Verdict.WORSE), (5, 0, Verdict.NO_DIFFERENCE), (0, 0, Verdict.NO_DIFFERENCE)],
)
def test_the_verdict_needs_more_than_chance(wins: int, losses: int, verdict: Verdict) -> None:
    outcome = compared([("a", "b", "a")] * wins + [("a", "a", "b")] * losses + [("a", "a", "a")] * 10)
    assert outcome.verdict is verdict


def test_the_fallback_labels_of_both_are_one() -> None:
    rows = [Labelled("x", "none"), Labelled("y", "a")]
    of_a = answers_of([fell_back("a", fallback="none"), fell_back("a", fallback="none")], fallback="none")
    of_b = answers_of([plain("oos"), plain("oos")], fallback="oos")
    outcome = compare(rows, of_a, of_b, ["oos"])
    assert (outcome.both_right, outcome.both_wrong, outcome.agreement) == (1, 1, 1.0)
    assert (outcome.in_scope, outcome.accuracy_in_scope_b) == (1, 0.0)


@given(TRIPLES)
def test_the_figures_fit_each_other_and_json(triples: list[tuple[str, str, str]]) -> None:
    outcome = compared(triples)
    assert outcome.both_right + outcome.wins + outcome.losses + outcome.both_wrong == len(triples)
    assert outcome.agreement == sum(a == b for _, a, b in triples) / len(triples)
    assert outcome.accuracy_a == sum(label == a for label, a, _ in triples) / len(triples)
    assert outcome.accuracy_b == sum(label == b for label, _, b in triples) / len(triples)
    assert len(outcome.differences) == sum(a != b for _, a, b in triples)
    assert sum(each.wins for each in outcome.labels) == outcome.wins
    assert sum(each.losses for each in outcome.labels) == outcome.losses
    assert outcome.p_value == mcnemar_p_value(outcome.wins, outcome.losses)
    inside = [triple for triple in triples if triple[0] != "oos"]
    expected = sum(label == b for label, _, b in inside) / len(inside) if inside else None
    assert outcome.accuracy_in_scope_b == expected
    told = outcome.as_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told


@given(TRIPLES)
def test_the_other_way_round_wins_are_losses(triples: list[tuple[str, str, str]]) -> None:
    one, other = compared(triples), compared([(label, b, a) for label, a, b in triples])
    assert (one.wins, one.losses, one.p_value) == (other.losses, other.wins, other.p_value)
    assert (one.accuracy_a, one.accuracy_in_scope_a) == (other.accuracy_b, other.accuracy_in_scope_b)
