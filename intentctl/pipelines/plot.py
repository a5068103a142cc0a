"""A pipeline as a picture: a box for each step and model, and an arrow for each way onward."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeAlias

from intentctl.pipelines.description import OTHERWISE, question_of
from intentctl.pipelines.layout import Course, Layout, Place, layout_of
from serving.domain.pipelines.pipeline import Pipeline
from serving.telemetry.foreign_text import shown

_Point: TypeAlias = tuple[float, float]
"""Point of the picture, in inches."""

_BOX_CHARACTERS: Final = 26
_LABEL_CHARACTERS: Final = 24
_BOX_INCHES: Final = 2.1
"""Width of the boxes of one column; a line of a box is no wider."""
_GAP_INCHES: Final = 2.0
"""Distance between the boxes of two columns, where the labels stand."""
_LINE_INCHES: Final = 0.17
_LEAST_ROW_INCHES: Final = 0.65
_DOTS_PER_INCH: Final = 120
_STEP: Final = "#dbe9f6"
_MODEL: Final = "#e8f3e1"
_LINE: Final = "#4a5a6a"
_OTHERWISE: Final = "#c0703a"
_MOST_LINES: Final = 8
_START_POINTS: Final = 2.4
"""Width of the border of the first step."""
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

    layout = layout_of(pipeline)
    texts = {name: _text_of(pipeline, name) for name in layout.steps}
    lines = max(text.count("\n") + 1 for text in (*texts.values(), *(_wrapped(way.labels) for way in layout.courses)))
    scale = _Scale(layout, max(_LEAST_ROW_INCHES, (lines + 2) * _LINE_INCHES))
    figure, axes = plt.subplots(figsize=(scale.width, scale.height))
    for name, place in layout.steps.items():
        colour = _MODEL if pipeline.steps[name].ask == (name,) else _STEP
        width = _START_POINTS if name == pipeline.start else 1.0
        style = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": _LINE, "linewidth": width}
        across, up = scale.middle(place)
        axes.text(across, up, texts[name], fontsize=9, bbox=style, zorder=3, **_PLAIN, **_CENTERED)
    axes.set_position((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0.0, scale.width)
    axes.set_ylim(0.0, scale.height)
    # The boxes have widths of their own: arrows end where the box of their target begins.
    figure.canvas.draw()
    to_inches = axes.transData.inverted()
    patches: list[Any] = [text.get_bbox_patch() for text in axes.texts]
    boxes = [patch.get_window_extent().transformed(to_inches) for patch in patches]
    sides = {place: (box.x0, box.x1) for place, box in zip(layout.steps.values(), boxes, strict=True)}
    for course in layout.courses:
        _arrow(axes, scale, course, (sides[course.places[0]][1], sides[course.places[-1]][0]))
    axes.set_axis_off()
    axes.set_title(shown(title), fontsize=11, **_PLAIN)
    try:
        figure.savefig(path, dpi=_DOTS_PER_INCH, format=path.suffix.removeprefix("."), bbox_inches="tight")
    finally:
        plt.close(figure)


class _Scale:
    """Conversion from places to inches."""

    def __init__(self, layout: Layout, row_inches: float) -> None:
        self._row_inches = row_inches
        self.width = layout.columns * _BOX_INCHES + (layout.columns - 1) * _GAP_INCHES + 0.2
        self.height = layout.rows * row_inches + 0.2

    def middle(self, place: Place) -> _Point:
        """Return the middle of a box at the place."""
        across = 0.1 + place.column * (_BOX_INCHES + _GAP_INCHES) + _BOX_INCHES / 2
        return across, self.height / 2 + place.height * self._row_inches

    def gap(self, start: Place, end: Place) -> tuple[_Point, _Point]:
        """Return where a way leaves the column of one place, and where it enters that of the next one."""
        (left, low), (right, high) = self.middle(start), self.middle(end)
        return (left + _BOX_INCHES / 2, low), (right - _BOX_INCHES / 2, high)


def _arrow(axes: Any, scale: _Scale, course: Course, ends: tuple[float, float]) -> None:
    """Draw a way onward, with its labels in the first gap, nearer to its end, where fewer ways meet.

    Args:
        axes: the picture.
        scale: the conversion to inches.
        course: the way.
        ends: right side of the first box and left side of the last one.
    """
    from matplotlib.patches import FancyArrowPatch  # noqa: PLC0415 - see above
    from matplotlib.path import Path as Curve  # noqa: PLC0415

    colour = _OTHERWISE if course.labels == OTHERWISE else _LINE
    points, codes = _curve(scale, course.places, Curve)
    points[0], points[-1] = (ends[0], points[0][1]), (ends[1], points[-1][1])
    arrow = FancyArrowPatch(
        path=Curve(points, codes), arrowstyle="-|>", mutation_scale=10, color=colour, fill=False, zorder=1
    )
    axes.add_patch(arrow)
    (left, low), (right, high) = scale.gap(*course.places[:2])
    share = 0.62
    # The height of the curve below at this share of its width.
    bend = share * share * (3 - 2 * share)
    background = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    place = left + share * (right - left), low + bend * (high - low)
    axes.text(
        *place, _wrapped(course.labels), fontsize=7, color=colour, bbox=background, zorder=2, **_PLAIN, **_CENTERED
    )


def _curve(scale: _Scale, places: Sequence[Place], curve: Any) -> tuple[list[_Point], list[int]]:
    """Return the points and codes of a line that is level in each column, and bends in the gaps between them."""
    points, codes = [scale.middle(places[0])], [curve.MOVETO]
    for start, end in pairwise(places):
        (left, low), (right, high) = scale.gap(start, end)
        half = (left + right) / 2
        points += [(left, low), (half, low), (half, high), (right, high)]
        codes += [curve.LINETO, curve.CURVE4, curve.CURVE4, curve.CURVE4]
    points.append(scale.middle(places[-1]))
    codes.append(curve.LINETO)
    return points, codes


def _text_of(pipeline: Pipeline, name: str) -> str:
    step = pipeline.steps[name]
    texts = [name] if step.ask == (name,) else [name, question_of(step)]
    if name == pipeline.start:
        texts[0] = f"start: {name}"
    return "\n".join("\n".join(textwrap.wrap(shown(text), _BOX_CHARACTERS, max_lines=_MOST_LINES)) for text in texts)


def _wrapped(labels: str) -> str:
    return "\n".join(textwrap.wrap(shown(labels), _LABEL_CHARACTERS, max_lines=_MOST_LINES))
