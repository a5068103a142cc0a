"""A pipeline as a picture: a box for each step and model, and an arrow for each way onward."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from intentctl.pipelines.description import OTHERWISE, question_of, ways_of
from serving.domain.pipelines.pipeline import Pipeline
from serving.telemetry.foreign_text import shown

_Place: TypeAlias = tuple[int, int]

_INCHES_OF_COLUMN: Final = 4.0
_INCHES_OF_ROW: Final = 0.9
_DOTS_PER_INCH: Final = 120
_STEP: Final = "#dbe9f6"
_MODEL: Final = "#e8f3e1"
_LINE: Final = "#4a5a6a"
_OTHERWISE: Final = "#c0703a"
_LABEL_AT: Final = 0.55
_LINE_CHARACTERS: Final = 26
_MOST_LINES: Final = 8
_CENTERED: Final[Mapping[str, Any]] = {"ha": "center", "va": "center"}
# Names of labels are no formulas, even with dollar signs.
_PLAIN: Final[Mapping[str, Any]] = {"parse_math": False}


def draw(pipeline: Pipeline, title: str, path: Path) -> None:
    """Write the picture; the suffix of ``path``, ``.png`` or ``.svg``, chooses the form.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: ``path`` cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415 - slower to import than everything else that the command line needs

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    places = _places(pipeline)
    columns = 1 + max(column for column, _ in places.values())
    rows = 1 + max(row for _, row in places.values())
    figure, axes = plt.subplots(figsize=(_INCHES_OF_COLUMN * columns, _INCHES_OF_ROW * rows + 1.0))
    boxes: dict[str, Any] = {}
    for name, step in pipeline.steps.items():
        column, row = places[name]
        is_model = step.ask == (name,)
        text = shown(name) if is_model else f"{shown(name)}\n{shown(question_of(step))}"
        style = {"boxstyle": "round,pad=0.5", "facecolor": _MODEL if is_model else _STEP, "edgecolor": _LINE}
        boxes[name] = axes.text(column, -row, text, bbox=style, fontsize=9, zorder=3, **_PLAIN, **_CENTERED)
    for name, step in pipeline.steps.items():
        for way in ways_of(step):
            _arrow(axes, places[name], places[way.target], (boxes[name], boxes[way.target]), way.labels)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(-rows + 0.4, 0.6)
    axes.set_axis_off()
    axes.set_title(shown(title), fontsize=11, **_PLAIN)
    try:
        figure.savefig(path, dpi=_DOTS_PER_INCH, format=path.suffix.removeprefix("."), bbox_inches="tight")
    finally:
        plt.close(figure)


def _arrow(axes: Any, start: _Place, end: _Place, boxes: tuple[Any, Any], labels: str) -> None:
    """Draw a way onward, with its labels nearer to its end, where fewer ways meet."""
    (column, row), (ahead, below) = start, end
    colour = _OTHERWISE if labels == OTHERWISE else _LINE
    first, last = (box.get_bbox_patch() for box in boxes)
    style = {"arrowstyle": "->", "color": colour, "patchA": first, "patchB": last}
    axes.annotate("", xy=(ahead, -below), xytext=(column, -row), arrowprops=style, zorder=1)
    place = column + _LABEL_AT * (ahead - column), -(row + _LABEL_AT * (below - row))
    background = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    text = "\n".join(textwrap.wrap(shown(labels), _LINE_CHARACTERS, max_lines=_MOST_LINES))
    axes.text(*place, text, bbox=background, fontsize=7, color=colour, zorder=2, **_PLAIN, **_CENTERED)


def _places(pipeline: Pipeline) -> dict[str, _Place]:
    """Return the column and row of each step; a step is in the column behind the last of those that lead to it."""
    columns = {pipeline.start: 0}
    for name, step in pipeline.steps.items():
        for target in step.targets:
            columns[target] = max(columns.get(target, 0), columns[name] + 1)
    taken: dict[int, int] = {}
    places: dict[str, _Place] = {}
    for name in pipeline.steps:
        column = columns[name]
        places[name] = column, taken.get(column, 0)
        taken[column] = taken.get(column, 0) + 1
    return places
