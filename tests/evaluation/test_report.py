from __future__ import annotations

import base64
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.evaluation import Evaluation, Labelled, evaluate
from evaluation.plots import draw
from evaluation.report import html_report
from tests.evaluation.builders import answers_of, fell_back, plain

pytestmark = pytest.mark.slow

PNG = b"\x89PNG\r\n\x1a\n"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></svg>]]>&amp;&#0;",
    "{{ 7 * 7 }}{% raw %}",
    "$\\frac{1}$",
    "\x00\x08\x1b[31m\ufffe",
    "日本語 العربية 🙂",
    "javascript:alert(1)",
)


class Page(HTMLParser):
    """Tags, attributes and cells of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.cells: list[str] = []
        self._in_cell = False
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag in ("td", "h1"):
            self.cells.append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "h1")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data


def evaluation_with(labels: tuple[str, ...]) -> Evaluation:
    """Return an evaluation whose labels and texts are ``labels`` and in which each is confused with the next."""
    rows = [Labelled(label, label) for label in labels] + [Labelled("zebra", "oos")]
    answers = [plain(label, 0.7) for label in (*labels[1:], labels[0])]
    return evaluate(rows, answers_of([*answers, fell_back("oos", 0.2)]), ["oos"])


def report_of(evaluation: Evaluation, title: str = "m 1.0") -> bytes:
    plots = draw(evaluation, 0.5, "svg")
    return html_report(
        evaluation, model=title, data=title, figures=[("accuracy", "12.00%"), (title, title)], plots=plots
    )


def test_labels_and_texts_of_any_kind_are_shown_and_never_run() -> None:
    page = Page(report_of(evaluation_with(HOSTILE), HOSTILE[0]))
    assert set(page.cells) >= set(HOSTILE)
    assert not {"script", "iframe", "object", "link", "form", "a"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert [value for name, value in page.attributes if name in ("src", "href") and not value.startswith("data:")] == []
    assert any("default-src 'none'" in value for name, value in page.attributes if name == "content")


def test_the_report_has_the_figures_and_every_plot() -> None:
    evaluation = evaluation_with(("a", "b", "c"))
    page = Page(report_of(evaluation))
    assert "12.00%" in page.cells
    images = [value for name, value in page.attributes if name == "src"]
    assert len(images) == len(draw(evaluation, 0.5, "svg")) == 3
    for image in images:
        kind, _, data = image.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert ET.fromstring(base64.b64decode(data)).tag.endswith("svg")  # noqa: S314 - our own output


def test_a_report_without_plots_says_why() -> None:
    page = html_report(evaluation_with(("a", "b")), model="m", data="d", figures=[], plots={}).decode()
    assert "matplotlib is not installed" in page
    assert "<img" not in page


@settings(max_examples=8)
@given(st.lists(st.text(max_size=50), min_size=2, max_size=6, unique=True))
def test_labels_of_any_characters_can_be_drawn_and_reported(labels: list[str]) -> None:
    evaluation = evaluation_with(tuple(labels))
    images = draw(evaluation, None, "svg")
    for image in images.values():
        ET.fromstring(image)  # noqa: S314 - our own output
    assert "</html>" in html_report(evaluation, model="m", data="d", figures=[], plots=images).decode()


@pytest.mark.parametrize("labels", [HOSTILE, tuple(f"label {number}" for number in range(60))])
def test_plots_are_images(labels: tuple[str, ...]) -> None:
    images = draw(evaluation_with(labels), 0.5, "png")
    assert sorted(images) == ["confusion", "reliability", "threshold"]
    assert all(image.startswith(PNG) for image in images.values())


def test_equal_figures_give_equal_images() -> None:
    first, second = (draw(evaluation_with(("a", "b", "c")), 0.5, "svg") for _ in range(2))
    assert first == second


def test_what_there_are_no_rows_for_is_not_drawn() -> None:
    right = evaluate([Labelled("a", "a")], answers_of([plain("a", 0.0)]), ["oos"])
    assert draw(right, None, "svg") == {}
    assert "no rows to draw" in html_report(right, model="m", data="d", figures=[], plots={}).decode()
    outside = evaluate([Labelled("a", "oos")], answers_of([plain("a", 0.4)]), ["oos"])
    assert sorted(draw(outside, None, "svg")) == ["confusion", "threshold"]


def test_the_most_confused_labels_are_drawn_by_name() -> None:
    image = draw(evaluation_with(("first label", "second label")), 0.5, "svg")["confusion"].decode()
    assert "first label" in image
    assert "second label" in image
