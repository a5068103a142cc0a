"""Places for the steps of a pipeline on a plane, after Sugiyama, Tagawa and Toda (1981).

Steps stand in columns, each to the right of those that lead to it. A way over several columns takes a place in each of
them, so that no way runs through a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from intentctl.pipelines.description import Way, ways_of
from serving.domain.pipelines.pipeline import Pipeline


class Place(NamedTuple):
    """Place of a step, or of a way that passes by."""

    column: int
    height: float
    """Height above the middle of the picture, in rows."""


class Course(NamedTuple):
    """Way from one step to another."""

    labels: str
    places: tuple[Place, ...]
    """Places from the step to the next one, a place in each column."""


class Layout(NamedTuple):
    """Places of steps, and courses of the ways between them."""

    steps: Mapping[str, Place]
    courses: Sequence[Course]
    columns: int
    rows: int
    """Number of places in the fullest column."""


class _Passage(NamedTuple):
    """Part of a way: the number of the way, and the column that it passes."""

    way: int
    column: int


def layout_of(pipeline: Pipeline) -> Layout:
    """Return where the steps of a pipeline stand."""
    column_of = _columns(pipeline)
    ways = [(name, way) for name, step in pipeline.steps.items() for way in _joined(ways_of(step))]
    stops: list[list[str | _Passage]] = [
        [name, *(_Passage(number, column) for column in range(column_of[name] + 1, column_of[way.target])), way.target]
        for number, (name, way) in enumerate(ways)
    ]
    before: dict[str | _Passage, list[str | _Passage]] = {}
    for stop in stops:
        for one, other in pairwise(stop):
            before.setdefault(other, []).append(one)
    columns: list[list[str | _Passage]] = [[] for _ in range(1 + max(column_of.values()))]
    for name in pipeline.steps:
        columns[column_of[name]].append(name)
    for passage in before:
        if isinstance(passage, _Passage):
            columns[passage.column].append(passage)
    places: dict[str | _Passage, Place] = {}
    for column, members in enumerate(columns):
        # Ways cross less if everything stands where the steps that lead to it are.
        members.sort(key=lambda member: -fmean([places[each].height for each in before.get(member, ())] or [0.0]))
        for row, member in enumerate(members):
            places[member] = Place(column, (len(members) - 1) / 2 - row)
    courses = [
        Course(way.labels, tuple(map(places.__getitem__, stop))) for (_, way), stop in zip(ways, stops, strict=True)
    ]
    return Layout({name: places[name] for name in pipeline.steps}, courses, len(columns), max(map(len, columns)))


def _joined(ways: Sequence[Way]) -> Sequence[Way]:
    """Return the ways, those to the same step as one."""
    labels: dict[str, list[str]] = {}
    for way in ways:
        labels.setdefault(way.target, []).append(way.labels)
    return [Way(", ".join(texts), target) for target, texts in labels.items()]


def _columns(pipeline: Pipeline) -> dict[str, int]:
    """Return the column of each step: behind the last of those that lead to it."""
    columns = {pipeline.start: 0}
    for name, step in pipeline.steps.items():
        for target in step.targets:
            columns[target] = max(columns.get(target, 0), columns[name] + 1)
    return columns
