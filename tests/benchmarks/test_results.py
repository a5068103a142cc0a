from __future__ import annotations

import pytest

from benchmarks.results import Results, mean_latency, throughput
from benchmarks.targets import TARGETS, Target, missed
from tests.benchmarks.builders import figures, results


def test_json_keeps_everything() -> None:
    measured = results(
        {"ours": figures(10.0), "echo": figures(5.0)}, {"ours": figures(12.0)}, missing={"x": "no wheel"}
    )

    assert Results.from_json(measured.to_json()) == measured


def test_another_file_is_refused() -> None:
    with pytest.raises(ValueError, match="validation error"):
        Results.from_json(b'{"rounds": 3}')


def test_ratios_are_taken_within_rounds() -> None:
    # The machine was half as fast in the second round; the ratio does not see it. The third round has no peer.
    measured = results(
        {"ours": figures(20.0), "echo": figures(10.0)},
        {"ours": figures(10.0), "echo": figures(5.0)},
        {"ours": figures(99.0)},
    )

    assert measured.ratios("ours", throughput(64), "echo", throughput(64)) == [2.0, 2.0]
    assert measured.median("ours", throughput(64)) == 20.0
    assert measured.median("echo", throughput(64)) == 7.5


def test_what_was_not_measured_has_no_median() -> None:
    measured = results({"ours": figures(20.0)})

    assert measured.median("ours", throughput(8)) is None
    assert measured.median("echo", throughput(64)) is None
    assert measured.ratios("ours", throughput(64), "echo", throughput(64)) == []


def test_a_lower_bound_is_held_against_the_median_of_ratios() -> None:
    target = Target("speed", "ours", throughput(64), "echo", throughput(64), at_least=1.7)
    rounds = [{"ours": figures(rate), "echo": figures(10.0)} for rate in (18.0, 10.0, 17.0)]

    outcome = target.outcome(results(*rounds))
    short = target.outcome(results(*rounds[1:]))

    assert outcome is not None
    assert (outcome.median, outcome.least, outcome.most, outcome.reached) == (1.7, 1.0, 1.8, True)
    assert short is not None
    assert not short.reached


def test_an_upper_bound_is_held_too() -> None:
    target = Target("latency", "ours", mean_latency(64), "echo", mean_latency(64), at_most=0.45)

    outcome = target.outcome(results({"ours": figures(1.0, 5.0), "echo": figures(1.0, 10.0)}))

    assert outcome is not None
    assert (outcome.median, outcome.reached) == (0.5, False)


def test_only_measured_targets_can_be_missed() -> None:
    assert missed(results({"ours": figures(20.0)})) == []
    assert missed(results({"ours": figures(20.0), "echo": figures(10.0)})) == []
    slow = missed(results({"ours": figures(16.0), "echo": figures(10.0)}))
    assert [(target.system, target.other, target.at_least) for target in slow] == [("ours", "echo", 1.7)]


def test_each_target_has_one_bound() -> None:
    assert all((target.at_least is None) != (target.at_most is None) for target in TARGETS)
