"""Presentation of an explanation by ``intentctl explain``: shares of words, marked document, page and plot."""

from __future__ import annotations

import math
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intentctl.explanations.account import Account, accounts_of, answer_of
from intentctl.explanations.colours import AGAINST, FOR, colour_of, hexadecimal
from intentctl.explanations.marked import pieces_of, shown_token
from intentctl.explanations.page import html_page
from intentctl.explanations.plot import draw
from intentctl.explanations.shares import strength, tokens_of, words_of
from intentctl.explanations.terminal import marked, rows_of
from predictor.model.tokenizer import Tokenizer
from serving.domain.explanation import Explanation, LabelExplanation
from serving.domain.prediction import Fallback, Prediction, ScoredLabel
from serving.telemetry.foreign_text import shown

NGRAMS = Tokenizer.parse("basic_english+words:2+characters:2-4")
TEXTS = st.text(st.one_of(st.sampled_from("aB '.<>\"&;$"), st.characters()), max_size=30)
ADDS = st.floats(-1e3, 1e3)


@st.composite
def explained(draw: st.DrawFn, tokenizer: Tokenizer = NGRAMS) -> tuple[str, Explanation]:
    """Draw a document, and an explanation of it by a model that knows some of its n-grams."""
    document = draw(TEXTS)
    words = tokenizer.tokens(document)
    every = tokenizer.ngrams(words)
    known = draw(st.sets(st.sampled_from(sorted(set(every))))) if every else set()
    tokens = (*words, *(ngram for ngram in every if ngram in known))
    unknown = draw(st.sets(st.sampled_from(range(len(words))))) if words else set()
    return document, explanation(tokens, tuple(draw(ADDS) for _ in tokens), tuple(sorted(unknown)))


def explanation(
    tokens: tuple[str, ...], adds: tuple[float, ...], unknown: tuple[int, ...] = (), temperature: float = 1.0
) -> Explanation:
    parts = LabelExplanation("best", math.fsum((0.5, *adds)), 0.5, adds)
    return Explanation(tokens, unknown, (parts,), temperature)


def account(of: Explanation, score: float = 0.75) -> Account:
    (made,) = accounts_of(Prediction("best", score, (), "m", "1"), of)
    return made


# Shares.


def test_an_ngram_counts_in_equal_parts_for_the_words_that_it_touches() -> None:
    told = explanation(
        ("make", "a", "timer", "make a", "make a timer", '" tim'), (1.0, 2.0, 4.0, 10.0, 300.0, 50.0), (1,)
    )
    words = words_of(told, told.labels[0])
    assert [(word.text, word.own, word.of_ngrams, word.is_unknown) for word in words] == [
        ("make", 1.0, 105.0, False),
        ("a", 2.0, 105.0, True),
        ("timer", 4.0, 150.0, False),
    ]


@given(explained())
@settings(max_examples=150)
def test_what_words_add_is_what_all_tokens_add_and_so_is_what_different_tokens_add(
    given_: tuple[str, Explanation],
) -> None:
    told = given_[1]
    (part,) = told.labels
    everything = math.fsum(part.contributions)
    assert math.fsum(word.adds for word in words_of(told, part)) == pytest.approx(everything, abs=1e-9)
    tokens = tokens_of(told, part)
    assert math.fsum(token.adds for token in tokens) == pytest.approx(everything, abs=1e-9)
    assert sum(token.times for token in tokens) == len(told.tokens)
    assert [abs(token.adds) for token in tokens] == sorted((abs(token.adds) for token in tokens), reverse=True)
    assert all(-1.0 <= share <= 1.0 for share in strength(words_of(told, part)))


def test_the_same_token_is_told_once_with_how_often_it_is_there() -> None:
    told = explanation(("a", "b", "a"), (1.0, -5.0, 2.0))
    assert [(token.text, token.times, token.adds) for token in tokens_of(told, told.labels[0])] == [
        ("b", 1, -5.0),
        ("a", 2, 3.0),
    ]


def test_scores_of_other_labels_follow_from_their_logits() -> None:
    parts = [LabelExplanation(label, logit, logit, ()) for label, logit in (("a", 2.0), ("b", 1.0), ("c", -3.0))]
    every = [math.exp(part.logit / 1.5) for part in parts]
    best = ScoredLabel("a", every[0] / sum(every))
    fell_back = Prediction("oos", 0.0, (), "m", "1", Fallback(best, 0.99))
    accounts = accounts_of(fell_back, Explanation((), (), tuple(parts), 1.5))
    assert [each.score for each in accounts] == pytest.approx([value / sum(every) for value in every])
    assert "oos: the best label is a" in answer_of(fell_back)
    assert "0.99" in answer_of(fell_back)


# The document.


@given(explained())
@settings(max_examples=300)
def test_the_document_in_pieces_is_the_document_and_has_every_word_in_order(given_: tuple[str, Explanation]) -> None:
    document, _ = given_
    words = NGRAMS.tokens(document)
    pieces = pieces_of(document, words)
    assert [piece.word for piece in pieces if piece.word is not None] == [*range(len(words))]
    if "".join(piece.text for piece in pieces) != document:
        # Where conversion to lower case changes or drops letters, the words are shown in the form that the model sees.
        assert [piece.text for piece in pieces if piece.word is not None] == words
    for piece in pieces:
        if piece.word is not None:
            assert piece.text.lower().replace('"', "") == words[piece.word]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("Make a TIMER.", ["Make", "a", "TIMER", "."]),
        ('say "hi there"; now', ["say", "hi", "there", "now"]),
        ('fo"o bar', ['fo"o', "bar"]),
        ("a<br />b", ["a", "b"]),
        ("b <br /> B", ["b", "B"]),
        ("", []),
        (";;", []),
    ],
)
def test_words_are_found_where_they_are_written(document: str, expected: list[str]) -> None:
    pieces = pieces_of(document, NGRAMS.tokens(document))
    assert [piece.text for piece in pieces if piece.word is not None] == expected
    assert "".join(piece.text for piece in pieces) == document


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("I don\u2019t \u201cknow\u201d", ["I", "don", "\u2019", "t", "know"]),
        ("\uff21 \uff54\uff29mer\uff01", ["\uff21", "\uff54\uff29mer", "\uff01"]),
        ("\u200bca\u00adfe\u0301\u200b\u2026", ["ca\u00adfe\u0301", "\u2026", "", ""]),
        ("go\u2026 on", ["go", "\u2026", "", "", "on"]),
        ("\u01c4u \ufb01n\uff1cbr /\uff1ebis", ["\u01c4u", "\ufb01n", "bis"]),
    ],
)
def test_words_of_a_normalized_document_are_found_where_they_are_written(document: str, expected: list[str]) -> None:
    words = Tokenizer.parse("basic_english+normalized").tokens(document)
    pieces = pieces_of(document, words)
    assert "".join(piece.text for piece in pieces) == document
    assert [piece.text for piece in pieces if piece.word is not None] == expected


@pytest.mark.parametrize("tokenizer", ["characters", "basic_english_characters"])
def test_a_model_of_characters_has_characters_for_words(tokenizer: str) -> None:
    document = "Ab c"
    words = Tokenizer.parse(tokenizer).tokens(document)
    pieces = pieces_of(document, words)
    assert "".join(piece.text for piece in pieces) == document
    assert sum(piece.word is not None for piece in pieces) == len(words)


def test_tokens_are_shown_as_people_read_them() -> None:
    assert [shown_token(token) for token in ('" ti', "make a", "timer", "\n", " ", '"')] == [
        "␣ti",
        "make a",
        "timer",
        "\\n",
        "␣",
        '"',
    ]


# Colours.


def test_what_speaks_for_a_label_and_what_speaks_against_it_have_different_colours_and_little_has_none() -> None:
    assert (colour_of(1.0), colour_of(-1.0)) == (FOR, AGAINST)
    assert colour_of(0.01) is colour_of(0.0) is None
    weak = colour_of(0.3)
    assert weak is not None
    assert all(strong <= faint <= 255 for strong, faint in zip(FOR, weak, strict=True))
    assert hexadecimal((0, 255, 16)) == "#00ff10"


def test_words_that_the_model_does_not_know_are_marked_with_colours_and_without() -> None:
    text = marked(account(explanation(("the", "zzz"), (1.0, -1.0), (1,))), "The zzz")
    assert text.plain == "The ~zzz~"
    by_word = {text.plain[span.start : span.end]: span.style for span in text.spans}
    assert f"on {hexadecimal(FOR)}" in str(by_word["The"])
    assert f"on {hexadecimal(AGAINST)}" in str(by_word["~zzz~"])
    assert "underline" in str(by_word["~zzz~"])


def test_the_rows_of_the_table_add_up() -> None:
    told = account(explanation(tuple("abcdef"), (3.0, -2.0, 1.0, 0.5, 0.25, -0.125)))
    for top in range(8):
        rows = rows_of(told, top)
        *parts, logit = [float(row[-1]) for row in rows]
        assert sum(parts) == pytest.approx(logit, abs=0.01)
        assert [row[0] for row in rows[-2:]] == ["bias", "logit"]
    assert [row[0] for row in rows_of(told, 2)] == ["a", "b", "4 others", "bias", "logit"]
    assert "+0.500 of the bias and +2.625 of the tokens add up to the logit +3.125" in told.sentence
    assert "0.750" in told.sentence


def test_what_is_rounded_to_zero_has_no_minus() -> None:
    told = account(explanation(("a", "b"), (-0.0004, 3.0)))
    assert [row[-1] for row in rows_of(told, 2)] == ["+3.000", "+0.000", "+0.500", "+3.500"]


# The page and the plot.


class Page(HTMLParser):
    """Parser that fails if a page has an unclosed tag, or would fetch or run anything."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {
            *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "span", "table", "tr", "th", "td"),
        }
        assert {name for name, _ in attrs} <= {
            "lang",
            "charset",
            "http-equiv",
            "content",
            "name",
            "class",
            "style",
            "title",
        }
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: bytes) -> str:
    reader = Page()
    reader.feed(page.decode())
    reader.close()
    assert reader.open == []
    assert b"http://" not in page
    assert b"https://" not in page
    return reader.text


@given(explained(), TEXTS.filter(bool))
@settings(max_examples=100)
def test_the_page_stands_alone_whatever_the_texts_hold(given_: tuple[str, Explanation], label: str) -> None:
    document, told = given_
    told = told._replace(labels=(told.labels[0]._replace(label=label),))
    made = accounts_of(Prediction(label, 0.5, (), "m", "1"), told)
    text = read(html_page(made, document, model="<m> & 1", answer=label, top=3))
    assert "<m> & 1" in text
    assert shown(label) in text
    if pieces_of(document, NGRAMS.tokens(document)):
        assert made[0].sentence in text


def test_the_page_tells_what_the_terminal_tells() -> None:
    told = account(explanation(("make", "<script>", '"<s'), (1.0, -0.5, 0.25), (1,)))
    page = html_page([told], "Make <script>", model="m 1", answer="best", top=9)
    text = read(page)
    for row in rows_of(told, 9):
        assert row[-1] in text
    assert b'class="unknown"' in page
    assert b"<script" not in page


@given(explained())
@settings(max_examples=10)
def test_the_plot_is_a_png_whatever_the_texts_hold(
    given_: tuple[str, Explanation],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plot.png"
        draw([account(given_[1])], "an answer of $x$ and $", 8, path)
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_long_document_has_a_plot_of_its_strongest_words(tmp_path: Path) -> None:
    words = tuple(f"word{number}" * (number % 9 + 1) for number in range(500))
    told = explanation(words, tuple(float(number % 17 - 8) for number in range(500)), (3,))
    draw([account(told), account(told)], "best", 10, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size < 1 << 20
