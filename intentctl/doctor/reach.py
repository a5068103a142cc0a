"""Tokens that a tokenizer can produce; the other tokens of a vocabulary are never looked up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import Final

from predictor.model.ngrams import MARK, is_ngram
from predictor.model.normalization import normalized
from predictor.model.tokenizer import Tokenizer, TokenizerName

_SPECIAL: Final = re.compile(r"</?\w+>|\[[A-Z]+\]")


class Obstacle(Enum):
    """Reason why a token is never produced."""

    CAPITALS = auto()
    """The tokenizer lowercases documents."""
    NGRAM = auto()
    """The token is an n-gram that the tokenizer does not make."""
    LONGER = auto()
    """The token has more than one character, and the tokenizer produces single characters."""
    SPELLING = auto()
    """The tokenizer normalizes documents, and the token is not in normal form."""
    CUT = auto()
    """The tokenizer would cut the token, or leave a part of it out."""


def is_special(token: str) -> bool:
    """Return whether a token represents something that no document contains, such as ``<pad>``."""
    return _SPECIAL.fullmatch(token) is not None


def out_of_reach(tokens: Iterable[str], tokenizer: Tokenizer) -> dict[Obstacle, list[str]]:
    """Return the tokens that ``tokenizer`` produces for no document, grouped by reason."""
    found: dict[Obstacle, list[str]] = {}
    for token in tokens:
        obstacle = _obstacle(token, tokenizer)
        if obstacle is not None:
            found.setdefault(obstacle, []).append(token)
    return found


def _obstacle(token: str, tokenizer: Tokenizer) -> Obstacle | None:
    if tokenizer.name is not TokenizerName.CHARACTERS and token != token.lower():
        return Obstacle.CAPITALS
    if tokenizer.is_normalized and not _is_normal(token):
        return Obstacle.SPELLING
    if tokenizer.name is not TokenizerName.BASIC_ENGLISH and len(token) > 1:
        return Obstacle.LONGER
    if tokenizer.name is TokenizerName.BASIC_ENGLISH and is_ngram(token):
        return _of_characters(token, tokenizer) if token[0] == MARK else _of_words(token, tokenizer)
    return None if tokenizer.tokens(token) == [token] else Obstacle.CUT


def _is_normal(token: str) -> bool:
    # The mark of n-grams is a double quote, which normalization drops.
    spelled = token.removeprefix(MARK)
    return normalized(spelled) == spelled


def _of_words(ngram: str, tokenizer: Tokenizer) -> Obstacle | None:
    words = ngram.split(" ")
    if not _are_words(words, tokenizer):
        return Obstacle.CUT
    return None if len(words) <= tokenizer.words else Obstacle.NGRAM


def _of_characters(ngram: str, tokenizer: Tokenizer) -> Obstacle | None:
    text = ngram[len(MARK) :]
    # The n-gram may begin and end between two words; one space separates its words, which may be partial.
    if not _are_words(text.removeprefix(" ").removesuffix(" ").split(" "), tokenizer):
        return Obstacle.CUT
    if tokenizer.characters is None:
        return Obstacle.NGRAM
    shortest, longest = tokenizer.characters
    return None if shortest <= len(text) <= longest else Obstacle.NGRAM


def _are_words(parts: Sequence[str], tokenizer: Tokenizer) -> bool:
    return all(tokenizer.tokens(part) == [part] for part in parts)
