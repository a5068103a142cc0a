"""Generator of docs/benchmarks.md from results: ``page.md.jinja`` has the prose, with placeholders for the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks import tables
from benchmarks.plots import LATENCY_PLOT, PLOT_FOLDER, THROUGHPUT_PLOT
from benchmarks.results import Kind, Results

_TEMPLATE: Final = "page.md.jinja"


def report(results: Results) -> str:
    """Return the page, as Markdown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape  # noqa: PLC0415 - slow to import

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    text = environment.get_template(_TEMPLATE).render(
        results=results,
        tables=tables,
        folder=PLOT_FOLDER,
        throughput_plot=THROUGHPUT_PLOT,
        latency_plot=LATENCY_PLOT,
        ours=Kind.OURS,
        variant=Kind.VARIANT,
        client=Kind.CLIENT,
    )
    return text.rstrip() + "\n"
