from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from predictor.model.tokenizer import Tokenizer, TokenizerName, basic_english, basic_english_characters
from tests.conftest import shared

# The definition: these substitutions are made in order on the lowercased text, which is then split.
SUBSTITUTIONS = [
    (r"\'", " '  "),
    (r"\"", ""),
    (r"\.", " . "),
    (r"<br \/>", " "),
    (r",", " , "),
    (r"\(", " ( "),
    (r"\)", " ) "),
    (r"\!", " ! "),
    (r"\?", " ? "),
    (r"\;", " "),
    (r"\:", " "),
    (r"\s+", " "),
]


def defined(text: str) -> list[str]:
    text = text.lower()
    for pattern, replacement in SUBSTITUTIONS:
        text = re.sub(pattern, replacement, text)
    return text.split()


ALPHABETS = [
    "a'\".,()!?;: ",
    "<br /> BR/\"'<>",
    " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000\u200b\ufeff\0a.",
    "İıIiſßẞKÅΣσςǅŉﬁ\u0307\u0345.'",
    "😀👨\u200d👩\u200d👧\ufe0f\u0301\u0300e.!",
    "\ud800\udfffa .'",
]
TEXTS = st.one_of(st.text(max_size=60), *(st.text(st.sampled_from(alphabet), max_size=60) for alphabet in ALPHABETS))
PIECES = st.lists(st.sampled_from(["<br", " />", '"', "<br />", "<BR />", "'", ".", "a", "  "]), max_size=12)


def test_every_recorded_case_gives_the_recorded_tokens() -> None:
    cases = [json.loads(line) for line in shared("golden/torchtext/tokenizer.jsonl").read_text().splitlines()]
    wrong = [case for case in cases if basic_english(case["text"]) != case["tokens"]]
    assert len(cases) == 830
    assert wrong == []
    assert [case for case in cases if defined(case["text"]) != case["tokens"]] == []


@given(TEXTS | PIECES.map("".join))
@example('<b"r />')
@example("<br' />")
@example('"<br />"')
@example("a<br />b<br/>c<br  />d")
@example("don't.STOP")
def test_the_tokens_are_those_of_the_definition(text: str) -> None:
    assert basic_english(text) == defined(text)


@given(TEXTS)
def test_characters_are_tokenized_as_if_joined_with_spaces(text: str) -> None:
    assert basic_english_characters(text) == basic_english(" ".join(text)) == defined(" ".join(text))


@given(TEXTS)
def test_a_character_tokenizer_changes_nothing(text: str) -> None:
    assert "".join(Tokenizer(TokenizerName.CHARACTERS).tokens(text)) == text


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        (TokenizerName.BASIC_ENGLISH, ["hi", "you", "!"]),
        (TokenizerName.BASIC_ENGLISH_CHARACTERS, ["h", "i", "y", "o", "u", "!"]),
        (TokenizerName.CHARACTERS, ["H", "i", " ", "y", "o", "u", "!"]),
    ],
)
def test_each_name_is_its_own_tokenizer(name: TokenizerName, tokens: list[str]) -> None:
    assert Tokenizer(name).tokens("Hi you!") == tokens


@pytest.mark.timeout(10)
@pytest.mark.parametrize("text", ["a" * (1 << 20), "'" * (1 << 20), " " * (1 << 20), '<br "' * (1 << 18)], ids=len)
def test_a_mebibyte_is_tokenized_in_linear_time(text: str) -> None:
    assert basic_english(text) == defined(text)


WRITTEN = st.builds(
    Tokenizer,
    st.just(TokenizerName.BASIC_ENGLISH),
    st.integers(1, 5),
    st.none() | st.tuples(st.integers(2, 8), st.integers(2, 8)).map(lambda sizes: (min(sizes), max(sizes))),
    st.booleans(),
) | st.builds(Tokenizer, st.sampled_from(TokenizerName))


@given(WRITTEN)
def test_a_tokenizer_is_read_as_it_is_written(subject: Tokenizer) -> None:
    assert Tokenizer.parse(str(subject)) == subject
    assert subject.has_ngrams == ("+words" in str(subject) or "+characters" in str(subject))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "basic_english ",
        "basic_english+",
        "basic_english+words",
        "basic_english+words:1",
        "basic_english+words:6",
        "basic_english+words:2+words:2",
        "basic_english+characters:2",
        "basic_english+characters:5-2",
        "basic_english+characters:1-3",
        "basic_english+characters:2-9",
        "basic_english+characters:2-5+words:2",
        "basic_english+words:２",
        "basic_english+words:2+normalized",
        "basic_english+normalized+normalized",
        "characters+normalized",
        "basic_english_characters+normalized",
        "characters+words:2",
        "basic_english_characters+characters:2-3",
        "basic_english+words:2\n",
    ],
)
def test_what_is_written_otherwise_is_no_tokenizer(text: str) -> None:
    with pytest.raises(ValueError, match="does not name a tokenizer"):
        Tokenizer.parse(text)


def test_ngrams_are_those_of_words_and_then_those_of_characters() -> None:
    subject = Tokenizer.parse("basic_english+words:2+characters:3-4")
    tokens = subject.tokens('Go "on"!')
    assert tokens == ["go", "on", "!"]
    assert subject.ngrams(tokens) == [
        "go on", "on !",
        '" go', '"go ', '" go ',
        '" on', '"on ', '" on ',
        '" ! ',
    ]  # fmt: skip
    assert subject.ngrams([]) == []


@given(TEXTS, WRITTEN)
def test_a_document_has_no_more_tokens_than_its_characters_can_give(text: str, subject: Tokenizer) -> None:
    tokens = subject.tokens(text)
    count = len(tokens) + len(subject.ngrams(tokens))
    # N-grams see one more space at both ends of each word.
    assert count <= 3 * subject.tokens_at_most(text)
