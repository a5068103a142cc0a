from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.model.ngrams import MARK, character_ngrams, is_ngram, spans, word_ngrams
from predictor.model.tokenizer import Tokenizer, TokenizerName, basic_english

TOKENIZER = Tokenizer(TokenizerName.BASIC_ENGLISH, 3, (2, 5))

WORDS = st.lists(st.text(st.characters(), min_size=1, max_size=6), max_size=8).map(
    lambda texts: basic_english(" ".join(texts))
)
"""Words that basic_english makes of any text."""


def character_spans(words: list[str], shortest: int, longest: int) -> list[tuple[str, int, int]]:
    """Return each n-gram of characters with the span of its word, by brute force."""
    found = []
    for index, word in enumerate(words):
        text = f" {word} "
        for size in range(shortest, longest + 1):
            found += [(MARK + text[start : start + size], index, index + 1) for start in range(len(text) - size + 1)]
    return found


def test_ngrams_of_words_are_neighbours_and_the_shorter_ones_come_first() -> None:
    assert word_ngrams(["make", "a", "timer"], 3) == ["make a", "a timer", "make a timer"]
    assert word_ngrams(["make"], 3) == []
    assert word_ngrams([], 2) == []


def test_ngrams_of_characters_tell_where_a_word_begins_and_ends() -> None:
    assert character_ngrams("bc", 2, 3) == ['" b', '"bc', '"c ', '" bc', '"bc ']
    assert character_ngrams("a", 3, 5) == ['" a ']
    assert character_ngrams("a", 4, 5) == []


@given(WORDS, st.integers(2, 8), st.integers(2, 8))
def test_ngrams_of_characters_are_all_that_a_word_has(words: list[str], shortest: int, longest: int) -> None:
    for word in words:
        assert character_ngrams(word, shortest, longest) == [
            ngram for ngram, _, _ in character_spans([word], shortest, longest)
        ]


@given(WORDS, WORDS)
def test_no_ngram_is_like_a_word_or_like_an_ngram_of_the_other_kind(words: list[str], others: list[str]) -> None:
    of_words = set(word_ngrams(words, 5))
    of_characters = {ngram for word in words for ngram in character_ngrams(word, 2, 8)}
    assert not any(map(is_ngram, others))
    assert all(map(is_ngram, of_words | of_characters))
    assert not of_words & of_characters
    assert not (of_words | of_characters) & set(others)


@given(WORDS, st.data())
@settings(max_examples=200)
def test_spans_cover_exactly_the_words_that_a_token_has_characters_of(words: list[str], data: st.DataObject) -> None:
    ngrams = [(" ".join(words[i : i + n]), i, i + n) for n in (2, 3) for i in range(len(words) - n + 1)]
    ngrams += character_spans(words, 2, 5)
    assert [ngram for ngram, _, _ in ngrams] == TOKENIZER.ngrams(words)
    # An explanation lists the n-grams that the vocabulary has, wherever the document has them.
    known = data.draw(st.sets(st.sampled_from(sorted({ngram for ngram, _, _ in ngrams})))) if ngrams else set()
    listed = [each for each in ngrams if each[0] in known]
    tokens = [*words, *(ngram for ngram, _, _ in listed)]
    of_words = [(index, index + 1) for index in range(len(words))]
    assert spans(tokens) == [*of_words, *((start, end) for _, start, end in listed)]


@pytest.mark.parametrize("tokens", [["a"], [" "], ['"'], ["a", " ", "b"], ['"', " "], []], ids=str)
def test_single_characters_are_words_whatever_they_are(tokens: list[str]) -> None:
    assert spans(tokens) == [(index, index + 1) for index in range(len(tokens))]
