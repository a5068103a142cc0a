from __future__ import annotations

import json
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.model.ngram_index import NgramIndex
from predictor.model.tokenizer import Tokenizer
from predictor.model.vocabulary import Vocabulary
from tests.conftest import shared

TEXTS = st.lists(st.text(st.one_of(st.sampled_from("ab c'."), st.characters()), max_size=12), min_size=1, max_size=6)
TOKENIZERS = st.sampled_from(
    ["words:2", "words:3+characters:2-4", "characters:2-5", "characters:3-3", "characters:2-8", "characters:8-8"]
).map(lambda written: Tokenizer.parse(f"basic_english+{written}"))


def by_dictionary(tokenizer: Tokenizer, vocabulary: Vocabulary, words: list[str]) -> tuple[list[int], list[str]]:
    """Return the indices and the texts of the n-grams that the vocabulary has, looked up one by one."""
    found = [ngram for ngram in tokenizer.ngrams(words) if ngram in vocabulary.indices]
    return [vocabulary.indices[ngram] for ngram in found], found


def assert_found(tokenizer: Tokenizer, vocabulary: Vocabulary, texts: list[str]) -> None:
    index = NgramIndex(tokenizer, vocabulary)
    # Each text comes twice, because remembered n-grams must be the same.
    for text in (*texts, *texts):
        words = tokenizer.tokens(text)
        indices, ngrams = by_dictionary(tokenizer, vocabulary, words)
        extended = index.extended([7, 7], words)
        assert extended == [7, 7, *indices]
        assert [*index.texts(words, extended[2:])] == ngrams


@given(TOKENIZERS, TEXTS, TEXTS, st.data())
@settings(max_examples=300)
def test_the_ngrams_found_are_those_that_a_dictionary_has(
    tokenizer: Tokenizer, trained: list[str], asked: list[str], data: st.DataObject
) -> None:
    seen = {ngram for text in trained for ngram in tokenizer.ngrams(tokenizer.tokens(text))}
    tokens = data.draw(st.sets(st.sampled_from(sorted(seen)))) if seen else set()
    # Tokens of third-party files that look like n-grams of characters but are none.
    odd = {'"', '"a"b', '""', '"a" ', 'a"', '"\0', '"a\0'}
    vocabulary = Vocabulary.of(data.draw(st.permutations(sorted(tokens | odd))), None)
    assert_found(tokenizer, vocabulary, [*trained, *asked])


def test_words_that_come_again_have_the_same_ngrams_and_no_more_are_remembered_than_may_be() -> None:
    tokenizer = Tokenizer.parse("basic_english+characters:3-5")
    words = [f"word{number}" for number in range(8)] + ["x" * 40, "x" * 40]
    vocabulary = Vocabulary.of(dict.fromkeys(tokenizer.ngrams(words[2:])), None)
    index = NgramIndex(tokenizer, vocabulary, most_words=3)
    for word in [*words, *words[::-1], *words]:
        assert index.extended([], [word]) == by_dictionary(tokenizer, vocabulary, [word])[0]
        assert len(index._of_words) <= 3
        assert "x" * 40 not in index._of_words


@pytest.mark.parametrize("characters", ["abc", "abc\ud800", "\0bc", "ab\U0010ffff"], ids=ascii)
def test_any_character_may_be_one_of_an_ngram(characters: str) -> None:
    tokenizer = Tokenizer.parse("basic_english+characters:2-3")
    texts = [characters, f"x{characters}x", f"{characters} {characters}", "", " ", "\0", "b"]
    assert_found(tokenizer, Vocabulary.of(tokenizer.ngrams([characters]), None), texts)


def test_a_vocabulary_whose_tokens_stand_elsewhere_than_their_indices_say_is_believed_in_its_indices() -> None:
    tokenizer = Tokenizer.parse("basic_english+words:2+characters:2-3")
    vocabulary = Vocabulary.with_indices(("<unk>", '"ab', "a b"), {'"ab': 2, "a b": 1, '" a': 1}, None)
    assert_found(tokenizer, vocabulary, ["ab", "a b", "b a"])


@pytest.mark.slow
def test_all_clinc150_test_rows_have_the_same_ngrams_either_way() -> None:
    data = json.loads(shared("datasets/clinc150/data_full.json").read_text())
    tokenizer = Tokenizer.parse("basic_english+words:2+characters:3-5")
    seen = chain.from_iterable(tokenizer.ngrams(tokenizer.tokens(text)) for text, _ in data["train"][::20])
    assert_found(
        tokenizer, Vocabulary.of(dict.fromkeys(seen), None), [text for text, _ in data["test"] + data["oos_test"]]
    )
