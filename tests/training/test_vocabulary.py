from __future__ import annotations

from predictor.vocabulary import UNKNOWN_TOKEN
from training.vocabulary import build_vocabulary


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
