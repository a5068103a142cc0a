from __future__ import annotations

from frontend.pipelines.counts import StepCounts
from serving.domain.prediction import Onward, PathStep


def step(name: str) -> PathStep:
    return PathStep(name, (), "yes", 0.5, 0.001, Onward.ANSWERED)


def counted(counts: StepCounts) -> list[tuple[str, dict[str, int]]]:
    return [
        (pipeline, {name: count.onward[Onward.ANSWERED] for name, count in steps.items()})
        for pipeline, steps in counts.of_pipelines()
    ]


def test_the_steps_of_the_pipeline_that_was_asked_longest_ago_make_room() -> None:
    counts = StepCounts(most=4)
    for pipeline, name in (("a", "1"), ("b", "1"), ("a", "2"), ("b", "2"), ("a", "1")):
        counts.count(pipeline, step(name))
    counts.count("c", step("1"))
    assert counted(counts) == [("c", {"1": 1}), ("a", {"1": 2, "2": 1})]


def test_steps_of_a_replaced_definition_are_forgotten() -> None:
    counts = StepCounts(most=4)
    for name in ("1", "2"):
        counts.count("a", step(name))
    counts.keep("a", ["2", "3"])
    counts.keep("unknown", ["1"])
    for name in ("3", "4"):
        counts.count("b", step(name))
    counts.count("a", step("3"))
    assert counted(counts) == [("a", {"2": 1, "3": 1}), ("b", {"3": 1, "4": 1})]


def test_a_pipeline_with_more_steps_than_are_counted_keeps_the_newest() -> None:
    counts = StepCounts(most=3)
    for number in range(1000):
        counts.count("router", step(f"to-{number}"))
    assert counted(counts) == [("router", {"to-997": 1, "to-998": 1, "to-999": 1})]
