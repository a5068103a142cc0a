from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from predictor.model.normalization import MAX_GROWTH, normalized
from predictor.model.tokenizer import Tokenizer, basic_english

PLAIN = Tokenizer.parse("basic_english")
NORMALIZED = Tokenizer.parse("basic_english+normalized")

# The planes between have ideographs and nothing else.
CHARACTERS = [chr(code) for code in (*range(0x20000), *range(0x2F800, 0x2FA20), *range(0xE0000, 0xE1000))]
ALPHABETS = [
    "a'\"’‘‛′´ʼ“”«»″‴ŉ.,!",
    "e\u0301\u0300\u0345\u200b\u200d\ufeff\u00ad\ufe0f\U000e0100\u034f",
    "ＡＢｃ１！＇＂　，ﬁ①½™ℕÅKΣσςİıẞßǅǰJ\u030c\u0149\ufdfa㌫",
    "日本語「カ\u3099ｶﾞ」กขคы한\u1112\u1161\u11ab<br />＜br／＞",
    "\ud800\udfff😀👨\u200d👩a’",
]
TEXTS = st.one_of(st.text(max_size=60), *(st.text(st.sampled_from(alphabet), max_size=40) for alphabet in ALPHABETS))


@pytest.mark.parametrize(
    "typed",
    [
        "i don\u2019t want it, can\u2019t i?",
        "i don\u02bct want it, can\u00b4t i?",
        "i don\uff07t want it\uff0c can\u2032t i\uff1f",
        "\u201ci don't want it\u201d, can't i?",
        "\u00abi don't want it\u00bb, can't i?",
        "\uff29 don't want it, can't \uff29?",
        "\u200bi don't want it, can't i?\u200b",
        "i don't wa\u00adnt i\u200bt, can't i?\ufeff",
        "i\u00a0don't\u2009want\u3000it, can't i?",
        "\u202ai don't want it, can't i?\u202c",
        "i don't w\U000e0061ant it, can't i?",
    ],
)
def test_what_people_type_becomes_the_tokens_of_plain_text(typed: str) -> None:
    plain = basic_english("i don't want it, can't i?")
    assert NORMALIZED.tokens(typed) == plain
    assert PLAIN.tokens(typed) != plain or typed.split() == "i don't want it, can't i?".split()


@given(TEXTS)
@example("‴")
@example("J\u030c")
@example("e\u200b\u0301")
@example('e"\u0301’')
def test_normal_text_is_left_as_it_is(text: str) -> None:
    once = normalized(text)
    assert normalized(once) == once


@given(TEXTS)
def test_each_token_of_normal_text_is_normal(text: str) -> None:
    for token in NORMALIZED.tokens(text):
        assert NORMALIZED.tokens(token) == [token]


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_has_the_tokens_that_it_has_without_the_option(text: str) -> None:
    assert normalized(text) is text
    assert NORMALIZED.tokens(text) == PLAIN.tokens(text)


@given(TEXTS)
def test_composed_and_decomposed_letters_make_no_difference(text: str) -> None:
    tokens = NORMALIZED.tokens(text)
    assert NORMALIZED.tokens(unicodedata.normalize("NFD", text)) == tokens


def test_every_character_becomes_normal_and_grows_as_far_as_is_said() -> None:
    results = set(map(normalized, CHARACTERS))
    assert [result for result in results if normalized(result) != result] == []
    assert max(map(len, results)) == MAX_GROWTH


def test_no_visible_character_is_lost_but_quotes() -> None:
    lost = {character for character in CHARACTERS if not normalized(character)}
    visible = {character for character in lost if unicodedata.category(character) not in {"Cf", "Mn", "Cn", "Lo"}}
    assert visible == set("«»“”„‟⹂「」『』〝〞〟﹁﹂﹃﹄＂｢｣״″‴‶‷⁗")


@given(TEXTS)
def test_a_document_has_no_more_tokens_than_are_counted_with(text: str) -> None:
    tokenizer = Tokenizer.parse("basic_english+normalized+words:2+characters:3-5")
    tokens = tokenizer.tokens(text)
    # N-grams see one more space at both ends of each word.
    assert len(tokens) + len(tokenizer.ngrams(tokens)) <= 3 * tokenizer.tokens_at_most(text)


def test_long_documents_are_counted_without_normalizing_them() -> None:
    text = "\ufdfa" * 100_000
    assert Tokenizer.parse("basic_english+normalized").tokens_at_most(text) == MAX_GROWTH * len(text)
