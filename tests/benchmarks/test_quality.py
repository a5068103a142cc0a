from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.quality.__main__ import app
from benchmarks.quality.data_sets import DATA_SETS
from benchmarks.quality.page import page, target_rows
from benchmarks.quality.plots import draw
from benchmarks.quality.results import TARGETS, DataSetRuns, Run, read, written
from benchmarks.reports.results import Machine

RUN = Run(
    seed=0,
    in_scope=0.93,
    in_scope_without_threshold=0.935,
    out_of_scope_recall=0.6,
    calibration_error=0.01,
    temperature=0.7,
    threshold=0.3,
    training_seconds=40.0,
    folder_bytes=7_900_000,
    microseconds=50.0,
    explained_microseconds=70.0,
    explanation_error=2e-6,
    curve=((0.0, 0.94), (0.5, 0.93), (1.0, 0.0)),
)


def runs(name: str, *found: Run) -> DataSetRuns:
    return DataSetRuns(name.title(), name, found)


def test_the_mean_over_the_seeds_is_what_counts() -> None:
    rows = target_rows([runs("data_full", replace(RUN, in_scope=0.9), replace(RUN, in_scope=0.95))])
    accuracy = next(row for row in rows if row[1].startswith("in-scope accuracy"))
    assert accuracy[2:] == ("at least 92.00 %", "92.50 % (90.00 % to 95.00 %)", "")
    rows = target_rows([runs("data_full", replace(RUN, in_scope=0.9), replace(RUN, in_scope=0.93))])
    assert next(row for row in rows if row[1].startswith("in-scope accuracy"))[-1] == "missed"


@pytest.mark.parametrize(
    "worse",
    [
        {"out_of_scope_recall": 0.49},
        {"calibration_error": 0.031},
        {"folder_bytes": 8_000_001},
        {"training_seconds": 301.0},
        {"microseconds": 60.1, "explained_microseconds": 60.1},
        {"explained_microseconds": 76.0},
        {"explanation_error": 1.1e-5},
    ],
    ids=lambda worse: next(iter(worse)),
)
def test_each_figure_that_is_out_of_bounds_is_told(worse: dict[str, float]) -> None:
    assert [row[-1] for row in target_rows([runs("data_full", RUN)])].count("missed") == 0
    changed = Run(**{field: getattr(RUN, field) for field in Run.__slots__} | worse)
    assert [row[-1] for row in target_rows([runs("data_full", changed)])].count("missed") == 1


def test_every_target_is_of_a_data_set_that_is_measured() -> None:
    assert {target.data_set for target in TARGETS} <= {plan.name for plan in DATA_SETS}


def test_the_page_and_its_plot_are_written(tmp_path: Path) -> None:
    found = [
        runs("data_full", RUN, replace(RUN, seed=1)),
        runs("banking77", replace(RUN, out_of_scope_recall=None, curve=())),
    ]
    text = page(found, Machine("a processor", 2, 4.0, "Linux", "3.11"))
    assert "93.00 % (93.00 % to 93.00 %)" in text
    assert "a processor" in text
    draw(found, tmp_path)
    assert (tmp_path / "quality" / "threshold.png").stat().st_size > 1000


def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = [runs("data_full", RUN), runs("words", RUN)]
    assert read(written(found)) == found
    (tmp_path / "figures.json").write_bytes(written(found))
    shown = CliRunner().invoke(app, ["--from-json", str(tmp_path / "figures.json")])
    assert shown.exit_code == 0
    assert "0 of 8 targets missed" in shown.stdout


def test_data_sets_that_were_measured_one_by_one_are_read_together(tmp_path: Path) -> None:
    one, other, all_of_them = (tmp_path / f"{name}.json" for name in ("one", "other", "all"))
    one.write_bytes(written([runs("banking77", RUN)]))
    other.write_bytes(written([runs("data_full", RUN)]))
    arguments = ["--from-json", str(one), "--from-json", str(other), "--json", str(all_of_them)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert read(all_of_them.read_bytes()) == [runs("data_full", RUN), runs("banking77", RUN)]


def test_a_data_set_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["--shared", str(tmp_path)]).exit_code == 2
    assert CliRunner().invoke(app, ["--only", "nothing"]).exit_code == 2
