from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from benchmarks.reports.plots import LATENCY_PLOT, PLOT_FOLDER, THROUGHPUT_PLOT, draw
from benchmarks.reports.report import report
from tests.benchmarks.builders import figures, level_figures, results

MEASURED = results(
    {"two-processes": figures(4000.0, 4.0), "echo": figures(1000.0, 8.0)},
    {"two-processes": figures(6000.0, 4.0), "echo": figures(1000.0, 8.0)},
    missing={"triton": "installing triton.txt: no matching distribution"},
)
WITH_MORE_ON = results(
    {
        "two-processes": replace(
            figures(4000.0, 4.0), connections=level_figures(3000.0), batch_documents_per_second=1e5
        ),
        "two-processes-tls": figures(3000.0, 5.0),
        "client": figures(2000.0, 7.0),
        "client-grpc-aio": figures(500.0, 9.0),
    }
)


def test_the_page_has_medians_ratios_costs_and_what_is_missing() -> None:
    page = report(MEASURED).splitlines()

    assert "| the two-processes | 1 | 5,000 |" in page
    assert "| the echo | 5.00 |" in page
    assert "| the two-processes | 4.00 | 4.00 | 8.00 | 12.00 |" in page
    assert "| the echo | 1,000 | 100 |" in page
    assert "- the triton: installing triton.txt: no matching distribution" in page
    to_echo, to_triton = (f"| two processes: requests/s at 64 in flight, to {other} |" for other in ("echo", "triton"))
    assert f"{to_echo} at least 4 | 5.00 | 4.00 to 6.00 | reached |" in page
    assert f"{to_triton} at least 2.5 | - | - | not measured |" in page


def test_what_is_on_beside_the_services_connections_batches_and_clients_have_tables_of_their_own() -> None:
    page = report(WITH_MORE_ON).splitlines()

    assert "| the two-processes-tls | 3,000 | 5.00 | 15.00 | 333.3 |" in page
    assert "| the two-processes | 3,000 | 1.00 | 3.00 | 333.3 |" in page
    assert "| the two-processes | 100,000 | - | - |" in page
    assert "| the client-grpc-aio | 500 | 9.00 | 27.00 | 2,000.0 |" in page
    assert "| AsyncIntentClient: calls/s at 64 in flight, to a stub of grpc.aio | 4.00 | 4.00 to 4.00 |" in page
    assert "Nothing: every system that was asked for ran to the end." in page


def test_parts_that_were_not_measured_have_no_heading() -> None:
    page = report(MEASURED)

    for heading in ("## Many connections", "## Batches", "## The Python client", "## Encryption"):
        assert heading in report(WITH_MORE_ON)
        assert heading not in page


def test_the_page_is_written_as_the_others_are() -> None:
    for page in (report(MEASURED), report(WITH_MORE_ON)):
        lines = page.splitlines()
        for line, following in itertools.pairwise(lines):
            if line.startswith("|") and following.startswith("|"):
                assert line.count("|") == following.count("|"), line
            if line.startswith("#"):
                assert not following, line
            if following.startswith("#") or (line.startswith("|") and not following.startswith("|")):
                assert "" in {line, following}, (line, following)
        assert "\n\n\n" not in page
        assert page.endswith("\n")


def test_every_picture_of_the_page_is_drawn(tmp_path: Path) -> None:
    draw(MEASURED, tmp_path)

    page = report(MEASURED)
    for name in (THROUGHPUT_PLOT, LATENCY_PLOT):
        assert f"({PLOT_FOLDER}/{name})" in page
        assert (tmp_path / PLOT_FOLDER / name).read_bytes().startswith(b"\x89PNG")
