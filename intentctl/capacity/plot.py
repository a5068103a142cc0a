"""Plot of ``intentctl capacity``: hit rate over memory, and over replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_DOTS_PER_INCH: Final = 120
_WITH: Final = "#1f6feb"
_WITHOUT: Final = "#9aa4af"


@dataclass(frozen=True, slots=True)
class Curve:
    """Hit rates over one quantity, with and without affinity."""

    title: str
    label: str
    """Label of the horizontal axis."""
    at: Sequence[float]
    with_affinity: Sequence[float]
    without_affinity: Sequence[float]
    mark: float
    """Position of the requested setting on the horizontal axis."""


def draw(curves: Sequence[Curve], wanted: float, path: Path) -> None:
    """Write one panel per curve to ``path``, with a line at the wanted hit rate.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: ``path`` cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415 - slower to import than everything else that the command line needs

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, panels = plt.subplots(1, len(curves), figsize=(5.2 * len(curves), 4.2), sharey=True, squeeze=False)
    for panel, curve in zip(panels[0], curves, strict=True):
        panel.plot(curve.at, curve.with_affinity, color=_WITH, linewidth=2.2, label="with affinity")
        panel.plot(curve.at, curve.without_affinity, color=_WITHOUT, linewidth=2.2, label="without affinity")
        panel.axhline(wanted, color="black", linewidth=0.8, linestyle=":", label=f"required: {wanted:g}")
        panel.axvline(curve.mark, color="black", linewidth=0.8, linestyle="--")
        panel.set(title=curve.title, xlabel=curve.label, ylim=(0, 1.02))
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        panel.grid(visible=True, alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("share of requests that find their model in memory")
    panels[0][-1].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=_DOTS_PER_INCH, format="png")
    finally:
        plt.close(figure)
