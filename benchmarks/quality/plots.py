"""Plot for docs/quality.md: in-scope accuracy and out-of-scope recall by threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.quality.results import DataSetRuns

PLOT_FOLDER: Final = "quality"
"""Folder of the plot, relative to the folder of the page."""
THRESHOLD_PLOT: Final = "threshold.png"

_DOTS_PER_INCH: Final = 120
_COLOURS: Final = ("#1f6feb", "#d9730d", "#2da44e", "#9aa4af")
# Larson et al., "An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction", 2019: threshold column.
_PUBLISHED: Final = (("MLP on sentence embeddings", 0.491, 0.934), ("SVM", 0.180, 0.882))


def draw(data_sets: list[DataSetRuns], docs: Path) -> None:
    """Write the plot below ``docs``."""
    import matplotlib as mpl  # noqa: PLC0415 - slower to import than everything else

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    folder = docs / PLOT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    figure, panel = plt.subplots(figsize=(7, 4.5))
    with_curves = [runs for runs in data_sets if runs.runs and runs.runs[0].curve]
    for colour, data_set in zip(_COLOURS, with_curves, strict=False):
        for number, run in enumerate(data_set.runs):
            recalls, accuracies = zip(*run.curve, strict=True)
            panel.plot(
                recalls, accuracies, color=colour, alpha=0.5, linewidth=1, label="" if number else data_set.title
            )
            panel.plot(run.out_of_scope_recall or 0.0, run.in_scope, "o", color=colour, markersize=5)
    for name, recall, accuracy in _PUBLISHED:
        panel.plot(recall, accuracy, "x", color="black")
        panel.annotate(f"{name} (published)", (recall, accuracy), textcoords="offset points", xytext=(6, 4), fontsize=8)
    panel.set(xlabel="out-of-scope recall", ylabel="in-scope accuracy", xlim=(0, 1), ylim=(0.6, 0.97))
    panel.xaxis.set_major_formatter("{x:.0%}")
    panel.yaxis.set_major_formatter("{x:.0%}")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=8, frameon=False, loc="lower left")
    panel.set_title(
        "CLINC150 test split by threshold; dots: the threshold that the validation texts chose", fontsize=10
    )
    figure.tight_layout()
    figure.savefig(folder / THRESHOLD_PLOT, dpi=_DOTS_PER_INCH)
    plt.close(figure)
