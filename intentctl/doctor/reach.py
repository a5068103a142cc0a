"""Which tokens a tokenizer can give at all: the others of a vocabulary are never looked up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import Final

from predictor.model.ngrams import MARK, is_ngram
from predictor.model.tokenizer import Tokenizer, TokenizerName

_SPECIAL: Final = re.compile(r"</?\w+>|\[[A-Z]+\]")


class Obstacle(Enum):
    """Why a token is never given."""

    CAPITALS = auto()
    """The tokenizer lowers documents."""
    NGRAM = auto()
    """It is an n-gram that the tokenizer does not make."""
    LONGER = auto()
    """It has more than one character, and the tokenizer gives characters."""
    CUT = auto()
    """The tokenizer would cut it, or leave a part of it out."""


def is_special(token: str) -> bool:
    """Return whether a token stands for something that no document says, as ``<pad>`` does."""
    return _SPECIAL.fullmatch(token) is not None


def out_of_reach(tokens: Iterable[str], tokenizer: Tokenizer) -> dict[Obstacle, list[str]]:
    """Return the tokens that ``tokenizer`` gives for no document, by the reason."""
    found: dict[Obstacle, list[str]] = {}
    for token in tokens:
        obstacle = _obstacle(token, tokenizer)
        if obstacle is not None:
            found.setdefault(obstacle, []).append(token)
    return found


def _obstacle(token: str, tokenizer: Tokenizer) -> Obstacle | None:
    if tokenizer.name is not TokenizerName.CHARACTERS and token != token.lower():
        return Obstacle.CAPITALS
    if tokenizer.name is not TokenizerName.BASIC_ENGLISH and len(token) > 1:
        return Obstacle.LONGER
    if tokenizer.name is TokenizerName.BASIC_ENGLISH and is_ngram(token):
        return _of_characters(token, tokenizer) if token[0] == MARK else _of_words(token, tokenizer)
    return None if tokenizer.tokens(token) == [token] else Obstacle.CUT


def _of_words(ngram: str, tokenizer: Tokenizer) -> Obstacle | None:
    words = ngram.split(" ")
    if not _are_words(words, tokenizer):
        return Obstacle.CUT
    return None if len(words) <= tokenizer.words else Obstacle.NGRAM


def _of_characters(ngram: str, tokenizer: Tokenizer) -> Obstacle | None:
    text = ngram[len(MARK) :]
    # It may begin and end between two words; within there is one space between two of them, of which parts may be here.
    if not _are_words(text.removeprefix(" ").removesuffix(" ").split(" "), tokenizer):
        return Obstacle.CUT
    if tokenizer.characters is None:
        return Obstacle.NGRAM
    shortest, longest = tokenizer.characters
    return None if shortest <= len(text) <= longest else Obstacle.NGRAM


def _are_words(parts: Sequence[str], tokenizer: Tokenizer) -> bool:
    return all(tokenizer.tokens(part) == [part] for part in parts)
