from __future__ import annotations

import pytest

from benchmarks.results import Results, mean_latency, throughput
from benchmarks.systems.all import TRANSPORTS, catalog
from benchmarks.targets import RATIOS, TARGETS, Ratio, Target, missed
from tests.benchmarks.builders import figures, results


def test_json_keeps_everything() -> None:
    measured = results(
        {"two-processes": figures(10.0), "echo": figures(5.0)},
        {"two-processes": figures(12.0)},
        missing={"x": "no wheel"},
    )

    assert Results.from_json(measured.to_json()) == measured


def test_another_file_is_refused() -> None:
    with pytest.raises(ValueError, match="validation error"):
        Results.from_json(b'{"rounds": 3}')


def test_ratios_are_taken_within_rounds() -> None:
    # The machine was half as fast in the second round, which does not change the ratio. The third round has no peer.
    measured = results(
        {"two-processes": figures(20.0), "echo": figures(10.0)},
        {"two-processes": figures(10.0), "echo": figures(5.0)},
        {"two-processes": figures(99.0)},
    )

    assert measured.ratios("two-processes", throughput(64), "echo", throughput(64)) == [2.0, 2.0]
    assert measured.median("two-processes", throughput(64)) == 20.0
    assert measured.median("echo", throughput(64)) == 7.5


def test_what_was_not_measured_has_no_median() -> None:
    measured = results({"two-processes": figures(20.0)})

    assert measured.median("two-processes", throughput(8)) is None
    assert measured.median("echo", throughput(64)) is None
    assert measured.ratios("two-processes", throughput(64), "echo", throughput(64)) == []


def test_a_lower_bound_is_held_against_the_median_of_ratios() -> None:
    target = Target(Ratio("speed", "two-processes", throughput(64), "echo", throughput(64)), at_least=1.7)
    rounds = [{"two-processes": figures(rate), "echo": figures(10.0)} for rate in (18.0, 10.0, 17.0)]

    spread = target.ratio.spread(results(*rounds))
    short = target.ratio.spread(results(*rounds[1:]))

    assert spread is not None
    assert (spread.median, spread.least, spread.most) == (1.7, 1.0, 1.8)
    assert target.is_reached(spread)
    assert short is not None
    assert not target.is_reached(short)


def test_an_upper_bound_is_held_too() -> None:
    target = Target(Ratio("latency", "two-processes", mean_latency(64), "echo", mean_latency(64)), at_most=0.45)

    spread = target.ratio.spread(results({"two-processes": figures(1.0, 5.0), "echo": figures(1.0, 10.0)}))

    assert spread is not None
    assert spread.median == 0.5
    assert not target.is_reached(spread)


def test_only_measured_targets_can_be_missed() -> None:
    assert missed(results({"two-processes": figures(20.0)})) == []
    assert missed(results({"two-processes": figures(40.0), "echo": figures(10.0)})) == []
    slow = missed(results({"two-processes": figures(39.0), "echo": figures(10.0)}))
    assert [(target.ratio.system, target.ratio.other, target.at_least) for target in slow] == [
        ("two-processes", "echo", 4.0)
    ]


def test_each_target_has_one_bound() -> None:
    assert all((target.at_least is None) != (target.at_most is None) for target in TARGETS)


def test_every_ratio_is_of_systems_that_can_be_measured() -> None:
    known = set(catalog(TRANSPORTS[0], None).names)

    ratios = [*RATIOS, *(target.ratio for target in TARGETS)]

    assert {name for ratio in ratios for name in (ratio.system, ratio.other)} <= known


def test_targets_need_nothing_but_what_is_measured_without_a_choice() -> None:
    usual = {subject.name for subject in catalog(TRANSPORTS[0], None).usual}

    assert {name for target in TARGETS for name in (target.ratio.system, target.ratio.other)} <= usual
