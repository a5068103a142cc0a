from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner

from benchmarks.quality.few import app
from benchmarks.quality.few_page import HEADING, kept_from, with_few
from benchmarks.quality.few_results import FewRun, read, written
from benchmarks.quality.typed import curly, full_width, without_normalization, zero_width
from predictor.model.tokenizer import Tokenizer
from tests.conftest import ROOT

RUN = FewRun("clinc150-5", 0, 0.60, 0.62, 0.5, 0.04, 0.2, 30.0)


def test_the_part_of_the_page_has_both_methods_and_replaces_a_former_part() -> None:
    page = "# Model quality\n\nother parts\n"
    later = replace(RUN, sample="clinc150-20")
    once = with_few(page, [replace(RUN, in_scope=0.5)], [later, RUN, replace(RUN, seed=1, in_scope=0.7)])
    rows = [line for line in once.splitlines() if line.startswith("| CLINC150 |")]
    assert [row.partition(" % ")[0] for row in rows] == [
        "| CLINC150 | 5 | former | 1 | 50.00",
        "| CLINC150 | 5 | present | 2 | 65.00",
        "| CLINC150 | 20 | present | 1 | 60.00",
    ]
    assert "| 65.00 % (60.00 % to 70.00 %) |" in rows[1]
    assert once.startswith(page.rstrip())
    again = with_few(once, [RUN], [RUN])
    assert again.count(HEADING) == 1
    assert kept_from(again).startswith(HEADING)
    assert kept_from(f"{page}\n## What people type\n\n{HEADING}").startswith("## What people type")
    assert kept_from(page) == ""


def test_figures_are_read_as_they_were_written() -> None:
    assert read(written([RUN, replace(RUN, seed=1)])) == [RUN, replace(RUN, seed=1)]


def test_models_that_the_file_has_are_not_trained_again(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    figures.write_bytes(written([RUN, replace(RUN, seed=1, in_scope=0.7)]))
    (tmp_path / "datasets").mkdir()
    arguments = ["--seeds", "2", "--only", "clinc150-5", "--json", str(figures), "--shared", str(tmp_path)]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "65.00 % (60.00 % to 70.00 %)" in shown.stdout


def test_a_sample_without_normalization_differs_in_nothing_else(tmp_path: Path) -> None:
    sample = ROOT / "models" / "banking77"
    copy = without_normalization(sample, tmp_path)
    plain, normalizing = (json.loads((folder / "manifest.json").read_text()) for folder in (copy, sample))
    assert (plain.pop("Tokenizer"), normalizing.pop("Tokenizer")) == ("basic_english", "basic_english+normalized")
    assert plain == normalizing
    assert (copy / "model.pth").read_bytes() == (sample / "model.pth").read_bytes()


def test_texts_as_people_type_them_differ_from_plain_ones_and_mean_the_same() -> None:
    text = "i don't know what time it is, do you?"
    plain, normalizing = Tokenizer.parse("basic_english"), Tokenizer.parse("basic_english+normalized")
    for change in (curly, full_width, zero_width):
        assert plain.tokens(change(text)) != plain.tokens(text)
        assert normalizing.tokens(change(text)) == plain.tokens(text)
