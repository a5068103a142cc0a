from __future__ import annotations

import itertools
from pathlib import Path

from benchmarks.plots import LATENCY_PLOT, PLOT_FOLDER, THROUGHPUT_PLOT, draw
from benchmarks.report import report
from tests.benchmarks.builders import figures, results

MEASURED = results(
    {"ours": figures(2000.0, 4.0), "echo": figures(1000.0, 8.0)},
    {"ours": figures(3000.0, 4.0), "echo": figures(1000.0, 8.0)},
    missing={"triton": "installing triton.txt: no matching distribution"},
)


def test_the_page_has_medians_ratios_costs_and_what_is_missing() -> None:
    page = report(MEASURED).splitlines()

    assert "| the ours | 1 | 2,500 |" in page
    assert "| the echo | 2.50 |" in page
    assert "| the ours | 4.00 | 4.00 | 8.00 | 12.00 |" in page
    assert "| the echo | 1,000 | 100 |" in page
    assert "- the triton: installing triton.txt: no matching distribution" in page
    assert (
        "| two processes: requests/s at 64 in flight to echo | at least 1.7 | 2.50 | 2.00 to 3.00 | reached |" in page
    )
    assert "| two processes: requests/s at 64 in flight to triton | at least 1.8 | - | - | not measured |" in page


def test_tables_are_whole() -> None:
    lines = report(MEASURED).splitlines()

    for line, following in itertools.pairwise(lines):
        if line.startswith("|") and following.startswith("|"):
            assert line.count("|") == following.count("|"), line


def test_every_picture_of_the_page_is_drawn(tmp_path: Path) -> None:
    draw(MEASURED, tmp_path)

    page = report(MEASURED)
    for name in (THROUGHPUT_PLOT, LATENCY_PLOT):
        assert f"({PLOT_FOLDER}/{name})" in page
        assert (tmp_path / PLOT_FOLDER / name).read_bytes().startswith(b"\x89PNG")
