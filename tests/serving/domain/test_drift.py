from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.answer_counts import CONFIDENCE_BINS, AnswerCounts
from serving.domain.drift import (
    FEWEST_DOCUMENTS,
    FEWEST_VALIDATED,
    Drift,
    Signal,
    Verdict,
    drift_of,
    index_by_chance,
    stability_index,
)

histograms = st.integers(1, 30).flatmap(
    lambda bins: st.tuples(*(st.lists(st.integers(0, 5000), min_size=bins, max_size=bins) for _ in range(2)))
)


def traffic(documents: int = 2000, *, unknown: float = 0.02, empty: float = 0.0, labels: int = 10) -> AnswerCounts:
    """Return the counts of documents with ten tokens each and the highest confidence, spread evenly over the labels."""
    return AnswerCounts(
        documents=documents,
        empty_documents=round(documents * empty),
        tokens=documents * 10,
        unknown_tokens=round(documents * 10 * unknown),
        confidence=(0,) * (CONFIDENCE_BINS - 1) + (documents,),
        labels={f"label-{number}": documents // labels for number in range(labels)},
    )


SHIFTED = dict(traffic().labels) | {"label-0": 40, "label-1": 360}


def signals(live: AnswerCounts, baseline: AnswerCounts) -> dict[str, Signal]:
    return {signal.name: signal for signal in drift_of(live, baseline).signals}


def verdicts(live: AnswerCounts, baseline: AnswerCounts) -> dict[str, Verdict]:
    return {name: signal.verdict for name, signal in signals(live, baseline).items()}


def test_the_index_is_the_sum_over_bins_of_the_difference_times_the_logarithm_of_the_ratio() -> None:
    # The worked example of a scorecard: shares of 0.2, 0.3 and 0.5 that became 0.3, 0.3 and 0.4. Half a count makes
    # no visible difference beside a million.
    index = stability_index([300_000, 300_000, 400_000], [200_000, 300_000, 500_000])
    assert index == pytest.approx(0.1 * math.log(1.5) - 0.1 * math.log(0.8), abs=1e-5)


@given(histograms)
def test_the_index_is_finite_symmetric_never_negative_and_zero_for_equals(both: tuple[list[int], list[int]]) -> None:
    one, other = both
    index = stability_index(one, other)
    assert math.isfinite(index)
    assert index >= 0.0
    assert index == pytest.approx(stability_index(other, one))
    assert stability_index(one, one) == 0.0


@given(histograms, st.randoms(use_true_random=False))
def test_neither_the_order_of_bins_nor_bins_that_are_empty_on_both_sides_count(
    both: tuple[list[int], list[int]], chance: random.Random
) -> None:
    pairs = [*zip(*both, strict=True), (0, 0), (0, 0)]
    shuffled = chance.sample(pairs, len(pairs))
    one, other = ([pair[side] for pair in shuffled] for side in (0, 1))
    assert stability_index(one, other) == pytest.approx(stability_index(*both))
    assert index_by_chance(one, other) == pytest.approx(index_by_chance(*both))


@pytest.mark.slow
@pytest.mark.parametrize("bins", [2, 20, 151])
@pytest.mark.parametrize(("live", "validated"), [(200, 50), (1000, 300), (5000, 3000)])
def test_chance_alone_is_no_drift(bins: int, live: int, validated: int, figure: Callable[[str], None]) -> None:
    """Documents of one source: hardly any of 300 pairs of samples may be called drift."""
    chance = random.Random(f"{bins} {live} {validated}")
    weights = [chance.expovariate(1.0) for _ in range(bins)]

    def sample(size: int) -> AnswerCounts:
        drawn = Counter(chance.choices(range(bins), weights, k=size))
        return traffic(size).model_copy(update={"labels": {str(label): count for label, count in drawn.items()}})

    found = [verdicts(sample(live), sample(validated))["labels"] for _ in range(300)]
    alarms = sum(verdict is not Verdict.NONE for verdict in found)
    figure(f"{bins} labels, {live} and {validated} documents of one source: {alarms} of 300 called drift")
    assert alarms <= 3


@pytest.mark.parametrize(
    ("live", "name", "verdict"),
    [
        (traffic(), "unknown_tokens", Verdict.NONE),
        (traffic(unknown=0.06), "unknown_tokens", Verdict.NONE),
        (traffic(unknown=0.08), "unknown_tokens", Verdict.SOME),
        (traffic(unknown=0.20), "unknown_tokens", Verdict.STRONG),
        (traffic(empty=0.01), "empty_documents", Verdict.NONE),
        (traffic(empty=0.03), "empty_documents", Verdict.SOME),
        (traffic(empty=0.20), "empty_documents", Verdict.STRONG),
        (traffic().model_copy(update={"labels": SHIFTED}), "labels", Verdict.SOME),
        (traffic(labels=2), "labels", Verdict.STRONG),
        (traffic().model_copy(update={"confidence": (200,) + (0,) * 18 + (1800,)}), "confidence", Verdict.STRONG),
        (traffic().model_copy(update={"confidence": (60,) + (0,) * 18 + (1940,)}), "confidence", Verdict.SOME),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_signal_has_its_own_verdict(live: AnswerCounts, name: str, verdict: Verdict) -> None:
    found = verdicts(live, traffic())
    assert found.pop(name) is verdict
    assert set(found.values()) == {Verdict.NONE}


def test_a_change_is_told_with_its_sign_and_both_shares() -> None:
    signal = signals(traffic(unknown=0.0), traffic(unknown=0.3))["unknown_tokens"]
    assert signal.change == pytest.approx(-0.3)
    assert signal.live_share == 0.0
    assert signal.baseline_share == pytest.approx(0.3)
    assert signal.verdict is Verdict.STRONG


@pytest.mark.parametrize(
    ("live", "validated"), [(FEWEST_DOCUMENTS - 1, 1000), (1000, FEWEST_VALIDATED - 1), (0, 0), (0, 1000)]
)
def test_of_too_few_documents_nothing_is_said(live: int, validated: int) -> None:
    found = verdicts(traffic(live, unknown=0.9, labels=1), traffic(validated))
    assert set(found.values()) == {Verdict.TOO_FEW}


def test_documents_without_any_token_are_told_by_the_empty_ones() -> None:
    live = traffic(empty=1.0).model_copy(update={"tokens": 0, "unknown_tokens": 0})
    assert verdicts(live, traffic())["empty_documents"] is Verdict.STRONG


counts = st.builds(
    lambda documents, empty, known, unknown, bins, labels: AnswerCounts(
        documents=documents,
        empty_documents=min(empty, documents),
        tokens=known + unknown,
        unknown_tokens=unknown,
        confidence=tuple(bins),
        labels=labels,
    ),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.integers(0, 100_000),
    st.integers(0, 100_000),
    st.lists(st.integers(0, 1000), min_size=CONFIDENCE_BINS, max_size=CONFIDENCE_BINS),
    st.dictionaries(st.text(max_size=3), st.integers(0, 1000), max_size=8),
)


@given(counts, counts)
def test_every_pair_of_counts_has_a_drift_of_finite_numbers(live: AnswerCounts, baseline: AnswerCounts) -> None:
    found: Drift = drift_of(live, baseline)
    numbers: Sequence[float] = [number for signal in found.signals for number in (signal.change, signal.by_chance)]
    assert all(math.isfinite(number) for number in numbers)
    assert all(signal.by_chance >= 0.0 for signal in found.signals)


@given(counts)
def test_nothing_drifts_from_itself(same: AnswerCounts) -> None:
    assert set(verdicts(same, same).values()) <= {Verdict.NONE, Verdict.TOO_FEW}
