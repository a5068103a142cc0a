"""Plots of an evaluation: reliability, confusions of the most confused labels, and the effect of thresholds.

The plots need matplotlib, which is optional: every function raises ModuleNotFoundError if it is not installed.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from evaluation.evaluation import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOTS_PER_INCH: Final = 120
_MOST_LABELS: Final = 14
_MOST_CHARACTERS: Final = 28
_FIRST: Final = "#1f6feb"
_SECOND: Final = "#d1580f"
_QUIET: Final = "#9aa4af"


def draw(evaluation: Evaluation, threshold: float | None, form: Literal["png", "svg"]) -> dict[str, bytes]:
    """Return the plots that there are rows for, by name: ``reliability``, ``confusion``, ``threshold``.

    Args:
        evaluation: the figures to draw.
        threshold: the threshold in force, which is marked.
        form: format of the images. Text in SVG stays text.
    """
    import matplotlib as mpl  # noqa: PLC0415 - takes longer to import than everything else that the command line needs

    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "evaluation", "text.parse_math": False}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # Text in a script that the font lacks is drawn as boxes, as in any program; that needs no warning.
        warnings.filterwarnings("ignore", message="Glyph")
        return {name: _image(figure, form) for name, figure in _figures(evaluation, threshold).items()}


def _figures(evaluation: Evaluation, threshold: float | None) -> dict[str, Figure]:
    figures = {}
    if evaluation.reliability:
        figures["reliability"] = _reliability(evaluation)
    if evaluation.confusions:
        figures["confusion"] = _confusion(evaluation)
    if evaluation.threshold_curve:
        figures["threshold"] = _threshold(evaluation, threshold)
    return figures


def _image(figure: Figure, form: Literal["png", "svg"]) -> bytes:
    image = io.BytesIO()
    # Omit the date, so that the same figures give identical files.
    figure.savefig(image, format=form, dpi=_DOTS_PER_INCH, metadata={"Date": None} if form == "svg" else {})
    return image.getvalue()


def _reliability(evaluation: Evaluation) -> Figure:
    figure = _figure(5.2, 5.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    bins = [each for each in evaluation.reliability if each.rows]
    at = [(each.low + each.high) / 2 for each in bins]
    width = evaluation.reliability[0].high - evaluation.reliability[0].low
    upper.bar(at, [each.accuracy for each in bins], width, color=_FIRST, edgecolor="white", label="accuracy")
    upper.plot(
        [each.confidence for each in bins],
        [each.accuracy for each in bins],
        "o",
        color=_SECOND,
        markersize=4,
        label="at its mean confidence",
    )
    upper.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="calibrated")
    upper.set(
        title=f"in scope: expected calibration error {evaluation.expected_calibration_error:.2%}",
        ylabel="right",
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
    upper.legend(fontsize=8, loc="upper left")
    lower.bar(at, [each.rows for each in bins], width, color=_QUIET, edgecolor="white")
    lower.set(xlabel="confidence", ylabel="rows")
    _shares(upper, "y")
    _shares(lower, "x")
    return figure


def _confusion(evaluation: Evaluation) -> Figure:
    labels = _most_confused(evaluation)
    places = {label: place for place, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    shares = np.zeros(counts.shape)
    support = {each.label: each.support for each in evaluation.labels}
    for label, answer, rows in evaluation.confusions:
        if label in places and answer in places:
            counts[places[label], places[answer]] = rows
            shares[places[label], places[answer]] = rows / support[label]
    for each in evaluation.labels:
        if each.label in places:
            counts[places[each.label], places[each.label]] = round(each.recall * each.support)
    figure = _figure(1.0 + 0.62 * len(labels) + 2.2, 1.0 + 0.5 * len(labels) + 1.6)
    panel = figure.subplots()
    # Right answers are grey; the colours are for mistakes.
    mistakes = np.ma.masked_array(shares, mask=np.eye(len(labels), dtype=bool))
    image = panel.imshow(mistakes, cmap="Oranges", vmin=0.0, vmax=max(float(shares.max()), 0.01), aspect="auto")
    panel.set_facecolor("#eef0f2")
    for row, column in zip(*np.nonzero(counts), strict=True):
        dark = row != column and shares[row, column] > 0.6 * shares.max()
        panel.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dark else "black",
        )
    panel.set_xticks(range(len(labels)), [_shown(label) for label in labels], rotation=45, ha="right", fontsize=8)
    panel.set_yticks(range(len(labels)), [_shown(label) for label in labels], fontsize=8)
    panel.set(title=f"the {len(labels)} most confused labels", xlabel="answer", ylabel="label")
    figure.colorbar(image, ax=panel, label="share of the label's rows", format=lambda value, _: f"{value:.0%}")
    return figure


def _threshold(evaluation: Evaluation, threshold: float | None) -> Figure:
    figure = _figure(5.8, 4.2)
    panel = figure.subplots()
    curve = evaluation.threshold_curve
    at = [point.threshold for point in curve]
    # Each list is either empty or holds one value per threshold.
    accuracy = [point.in_scope_accuracy for point in curve if point.in_scope_accuracy is not None]
    recall = [point.out_of_scope_recall for point in curve if point.out_of_scope_recall is not None]
    if accuracy:
        panel.plot(at, accuracy, color=_FIRST, linewidth=2.2, label="accuracy in scope")
    if recall:
        panel.plot(at, recall, color=_SECOND, linewidth=2.2, label="out-of-scope recall")
    if threshold is not None:
        panel.axvline(threshold, color="black", linewidth=0.8, linestyle="--", label=f"in force: {threshold:.3g}")
    panel.set(title="accuracy and recall by threshold", xlabel="threshold", xlim=(0, 1), ylim=(0, 1.02))
    panel.legend(fontsize=8, loc="lower center")
    _shares(panel, "y")
    return figure


def _most_confused(evaluation: Evaluation) -> Sequence[str]:
    """Return the labels of the most frequent mistakes, sorted."""
    labels: set[str] = set()
    for confusion in evaluation.confusions:
        more = labels | {confusion.label, confusion.answer}
        if len(more) > _MOST_LABELS:
            break
        labels = more
    return sorted(labels)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=(width, height), layout="constrained")


def _shares(panel: Axes, axis: Literal["x", "y"]) -> None:
    (panel.xaxis if axis == "x" else panel.yaxis).set_major_formatter(lambda value, _: f"{value:.0%}")
    panel.grid(visible=True, alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)


def _shown(label: str) -> str:
    """Return a label in a form that can be drawn on one line and in XML."""
    drawn = "".join(character if character.isprintable() else "\ufffd" for character in label)
    return drawn if len(drawn) <= _MOST_CHARACTERS else f"{drawn[: _MOST_CHARACTERS - 1]}…"
