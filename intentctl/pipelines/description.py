"""A pipeline in words: each step with its question and the ways onward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from serving.domain.pipelines.pipeline import Pipeline
from serving.domain.pipelines.step import Step

OTHERWISE: Final = "otherwise"
"""Text of the way that a step takes without an answer to go by."""
_MOST_LABELS: Final = 3


class Way(NamedTuple):
    """Way from a step to the next."""

    labels: str
    """Labels that lead there, or :data:`OTHERWISE`."""
    target: str


def question_of(step: Step) -> str:
    """Return what a step asks."""
    if step.detect is not None:
        return f"detects the {step.detect}"
    asked = ", ".join(step.ask)
    vote = "" if step.vote is None else f" and takes the {step.vote}"
    within = "" if step.within is None else f" within {step.within:g} s"
    return f"asks {asked}{vote}{within}"


def labels_by_target(step: Step) -> dict[str, list[str]]:
    """Return the labels that lead to each step or model."""
    labels: dict[str, list[str]] = defaultdict(list)
    for label, target in step.route.items():
        labels[target].append(label)
    return labels


def ways_of(step: Step) -> list[Way]:
    """Return the ways onward from a step; labels with the same target share one."""
    ways = [Way(_listed(names), target) for target, names in labels_by_target(step).items()]
    return ways if step.otherwise is None else [*ways, Way(OTHERWISE, step.otherwise)]


def as_dict(pipeline: Pipeline) -> dict[str, Any]:
    """Return the steps as JSON data, with all labels."""
    return {
        name: {
            "does": question_of(step),
            "routes": [{"labels": labels, "next": target} for target, labels in labels_by_target(step).items()],
            "otherwise": step.otherwise,
        }
        for name, step in pipeline.steps.items()
    }


def lines_of(pipeline: Pipeline) -> Iterator[str]:
    """Yield the lines of the drawing as text."""
    for name, step in pipeline.steps.items():
        start = "start: " if name == pipeline.start else ""
        if step.ask != (name,):
            yield f"{start}{name} {question_of(step)}"
        elif not step.targets and name != pipeline.start:
            # A model that is only a target appears where something leads to it.
            continue
        else:
            yield f"{start}{name}" + (f" {question_of(step)}" if not step.targets else "")
        yield from (f"  {way.labels} -> {way.target}" for way in ways_of(step))


def _listed(labels: list[str]) -> str:
    shown = ", ".join(labels[:_MOST_LABELS])
    more = len(labels) - _MOST_LABELS
    return f"{shown} and {more} more" if more > 0 else shown
