"""Plots for docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.results import Kind, LevelFigures, Results, at, throughput
from benchmarks.tables import SERVERS

PLOT_FOLDER: Final = "benchmarks"
"""Folder of the plots, relative to the folder of the page."""
THROUGHPUT_PLOT: Final = "throughput.png"
LATENCY_PLOT: Final = "latency.png"

_DOTS_PER_INCH: Final = 120
_OURS: Final = "#1f6feb"
_OTHERS: Final = "#9aa4af"
_MARKERS: Final = "osD^vPX*"


def draw(results: Results, docs: Path) -> None:
    """Write both plots below ``docs``."""
    import matplotlib as mpl  # noqa: PLC0415 - slower to import than everything else that the command line needs

    mpl.use("agg")
    folder = docs / PLOT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _throughput(results, folder / THROUGHPUT_PLOT)
    _latency(results, folder / LATENCY_PLOT)


def _throughput(results: Results, path: Path) -> None:
    """Draw one panel per level, with one bar per system."""
    from matplotlib import pyplot as plt  # noqa: PLC0415

    names = results.measured(*SERVERS)[::-1]
    levels = results.plan.levels
    height = 1.2 + 0.35 * len(names)
    figure, panels = plt.subplots(1, len(levels), figsize=(3.2 * len(levels) + 2, height), sharey=True, squeeze=False)
    for panel, level in zip(panels[0], levels, strict=True):
        values = [results.median(name, throughput(level)) or 0.0 for name in names]
        colours = [_OURS if results.systems[name].kind is Kind.OURS else _OTHERS for name in names]
        bars = panel.barh([results.systems[name].title for name in names], values, color=colours)
        panel.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=8)
        panel.set_title(f"{level:,} in flight", fontsize=10)
        panel.margins(x=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        panel.tick_params(labelsize=8)
    figure.suptitle("Requests per second (more is better)", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    plt.close(figure)


def _latency(results: Results, path: Path) -> None:
    """Draw one panel per percentile, with one line per system over the levels."""
    from matplotlib import pyplot as plt  # noqa: PLC0415

    def p50(level: LevelFigures) -> float:
        return level.latency.p50

    def p99(level: LevelFigures) -> float:
        return level.latency.p99

    figure, panels = plt.subplots(1, 2, figsize=(12, 4.8), sharey=True)
    for panel, title, take in zip(panels, ("median", "99th percentile"), (p50, p99), strict=True):
        for number, name in enumerate(results.measured(*SERVERS)):
            points = [(level, results.median(name, at(level, take))) for level in results.plan.levels]
            known = [(level, value) for level, value in points if value is not None]
            ours = results.systems[name].kind is Kind.OURS
            panel.plot(
                [level for level, _ in known],
                [value for _, value in known],
                label=results.systems[name].title,
                marker=_MARKERS[number % len(_MARKERS)],
                linewidth=2.2 if ours else 1.2,
                zorder=3 if ours else 2,
            )
        panel.set(xscale="log", yscale="log", xlabel="requests in flight", title=f"Latency, {title} (less is better)")
        panel.set_xticks(results.plan.levels, [f"{level:,}" for level in results.plan.levels])
        panel.minorticks_off()
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.grid(visible=True, alpha=0.3)
    panels[0].set_ylabel("milliseconds")
    panels[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    plt.close(figure)
