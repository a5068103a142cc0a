from __future__ import annotations

from predictor.model.vocabulary import UNKNOWN_TOKEN
from training.vocabulary import build_vocabulary, with_ngrams


def test_frequent_tokens_come_first_and_equally_frequent_ones_by_code_points() -> None:
    vocabulary = build_vocabulary([["b", "a", "é"], ["c", "c", "Z"], ["b"]])
    assert vocabulary.tokens == (UNKNOWN_TOKEN, "b", "c", "Z", "a", "é")


def test_unknown_tokens_have_the_index_of_the_first() -> None:
    vocabulary = build_vocabulary([["a"]])
    assert (vocabulary.default_index, vocabulary.lookup("never seen")) == (0, 0)


def test_the_unknown_token_stands_once_though_texts_have_it() -> None:
    assert build_vocabulary([[UNKNOWN_TOKEN, UNKNOWN_TOKEN, "a"]]).tokens == (UNKNOWN_TOKEN, "a")


def test_rare_tokens_are_left_out() -> None:
    assert build_vocabulary([["a", "b", "a"]], minimum_frequency=2).tokens == (UNKNOWN_TOKEN, "a")


def test_ngrams_follow_the_words_those_of_most_documents_first() -> None:
    words = build_vocabulary([["a", "b"]])
    documents = [["b c", "b c", "a b"], ["c d", "a b"], ["c d"]]
    found = with_ngrams(words, documents, minimum_frequency=1, row_bytes=0, most_bytes=1000)
    assert found.tokens == (UNKNOWN_TOKEN, "a", "b", "a b", "c d", "b c")
    assert found.default_index == 0
    rare = with_ngrams(words, documents, minimum_frequency=2, row_bytes=0, most_bytes=1000)
    assert rare.tokens == (UNKNOWN_TOKEN, "a", "b", "a b", "c d")


def test_what_does_not_fit_is_left_out_from_the_end() -> None:
    words = build_vocabulary([["a", "é"]])
    documents = [["a é"]]
    costs = [10 + len(token.encode()) for token in (UNKNOWN_TOKEN, "a", "é", "a é")]
    for kept in range(5):
        found = with_ngrams(words, documents, minimum_frequency=1, row_bytes=10, most_bytes=sum(costs[:kept]))
        assert found.tokens == (UNKNOWN_TOKEN, "a", "é", "a é")[:kept]
        barely = with_ngrams(words, documents, minimum_frequency=1, row_bytes=10, most_bytes=sum(costs[:kept]) - 1)
        assert len(barely) == max(0, kept - 1)
