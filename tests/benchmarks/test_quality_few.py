from __future__ import annotations

from dataclasses import replace

from benchmarks.quality.few_page import HEADING, kept_from, with_few
from benchmarks.quality.few_results import FewRun, read, written
from benchmarks.quality.typed import curly, full_width, zero_width
from predictor.model.tokenizer import Tokenizer

RUN = FewRun("clinc150-5", 0, 0.60, 0.62, 0.5, 0.04, 0.2, 30.0)


def test_the_part_of_the_page_has_both_figures_and_replaces_a_former_one() -> None:
    page = "# Model quality\n\nother parts\n"
    once = with_few(page, [replace(RUN, in_scope=0.5)], [RUN, replace(RUN, seed=1, in_scope=0.7)])
    assert "| CLINC150 | 5 | 2 | 50.00 % -> 65.00 % |" in once
    assert once.startswith(page.rstrip())
    again = with_few(once, [RUN], [RUN])
    assert again.count(HEADING) == 1
    assert kept_from(again).startswith(HEADING)
    assert kept_from(f"{page}\n## What people type\n\n{HEADING}").startswith("## What people type")
    assert kept_from(page) == ""


def test_figures_are_read_as_they_were_written() -> None:
    assert read(written([RUN, replace(RUN, seed=1)])) == [RUN, replace(RUN, seed=1)]


def test_texts_as_people_type_them_differ_from_plain_ones_and_mean_the_same() -> None:
    text = "i don't know what time it is, do you?"
    plain, normalizing = Tokenizer.parse("basic_english"), Tokenizer.parse("basic_english+normalized")
    for change in (curly, full_width, zero_width):
        assert plain.tokens(change(text)) != plain.tokens(text)
        assert normalizing.tokens(change(text)) == plain.tokens(text)
