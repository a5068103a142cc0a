from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intentctl.doctor.reach import Obstacle, is_special, out_of_reach
from predictor.model.tokenizer import Tokenizer

TOKENIZERS = [
    Tokenizer.parse(name)
    for name in (
        "basic_english",
        "basic_english+words:3",
        "basic_english+words:2+characters:3-5",
        "basic_english+normalized",
        "basic_english+normalized+words:2+characters:3-5",
        "basic_english_characters",
        "characters",
    )
]

documents = st.one_of(
    st.text(max_size=60), st.text(alphabet="aB .,'\"<br/>;:é\tΣ\u2019\u201c\u0301\u200b\uff21\u00b4", max_size=60)
)


@given(documents, st.sampled_from(TOKENIZERS))
def test_no_token_that_a_document_gives_is_out_of_reach(document: str, tokenizer: Tokenizer) -> None:
    tokens = tokenizer.tokens(document)
    assert out_of_reach([*tokens, *tokenizer.ngrams(tokens)], tokenizer) == {}


@pytest.mark.parametrize(
    ("tokenizer", "token", "obstacle"),
    [
        ("basic_english", "Rain", Obstacle.CAPITALS),
        ("basic_english", "don't", Obstacle.CUT),
        ("basic_english", "rain\n", Obstacle.CUT),
        ("basic_english", 'a"b', Obstacle.CUT),
        ("basic_english", "", Obstacle.CUT),
        ("basic_english", "make a", Obstacle.NGRAM),
        ("basic_english", '"ma', Obstacle.NGRAM),
        ("basic_english+words:2", "make a timer", Obstacle.NGRAM),
        ("basic_english+words:2", "make a", None),
        ("basic_english+words:2", "make  a", Obstacle.CUT),
        ("basic_english+words:2", "don't go", Obstacle.CUT),
        ("basic_english+characters:2-4", '" ma', None),
        ("basic_english+characters:2-4", '"a t', None),
        ("basic_english+characters:2-4", '"make ', Obstacle.NGRAM),
        ("basic_english+characters:2-4", '"a', Obstacle.NGRAM),
        ("basic_english+characters:2-4", '"a  b', Obstacle.CUT),
        ("basic_english+characters:2-4", "\"n't", Obstacle.CUT),
        ("basic_english+characters:2-4", '"  ', Obstacle.CUT),
        ("basic_english+normalized", "it\u2019s", Obstacle.SPELLING),
        ("basic_english+normalized", "\uff54imer", Obstacle.SPELLING),
        ("basic_english+normalized", "ti\u00admer", Obstacle.SPELLING),
        ("basic_english+normalized", "caf\u00e9", None),
        ("basic_english+normalized", "don't", Obstacle.CUT),
        ("basic_english+normalized+characters:2-4", '"f\u00e9 ', None),
        ("basic_english+normalized+characters:2-4", '"fe\u0301', Obstacle.SPELLING),
        ("basic_english+normalized+words:2", "caf\u00e9 noir", None),
        ("basic_english_characters", "a", None),
        ("basic_english_characters", "A", Obstacle.CAPITALS),
        ("basic_english_characters", " ", Obstacle.CUT),
        ("basic_english_characters", "ab", Obstacle.LONGER),
        ("characters", " ", None),
        ("characters", "A", None),
        ("characters", "ab", Obstacle.LONGER),
    ],
)
def test_a_token_is_out_of_reach_for_a_reason(tokenizer: str, token: str, obstacle: Obstacle | None) -> None:
    assert out_of_reach([token], Tokenizer.parse(tokenizer)) == ({} if obstacle is None else {obstacle: [token]})


@pytest.mark.parametrize(
    ("token", "special"),
    [("<unk>", True), ("<pad>", True), ("</s>", True), ("[CLS]", True), ("<", False), ("rain", False), ("[a]", False)],
)
def test_special_tokens_are_told_by_their_form(token: str, special: bool) -> None:
    assert is_special(token) is special
