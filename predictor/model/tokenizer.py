"""Splits a document into tokens, as torchtext's ``basic_english`` does.

The source of the behaviour is ``torchtext.data.utils.get_tokenizer("basic_english")``, which is the same in releases
0.2 to 0.18: lowercase the text, apply twelve substitutions in order, split on white space. Those substitutions only put
spaces around some characters and drop others, so once quotes and ``<br />`` are removed, one pass gives the same
tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from predictor.model.ngrams import character_ngrams, word_ngrams
from predictor.model.normalization import MAX_GROWTH, normalized

Tokenize = Callable[[str], list[str]]

_MOST_COUNTED: Final = 1024
"""Maximum characters of a document that is normalized only to count its characters."""

_ONE_PASS: Final = str.maketrans(
    {
        "'": " ' ",
        ".": " . ",
        ",": " , ",
        "(": " ( ",
        ")": " ) ",
        "!": " ! ",
        "?": " ? ",
        ";": " ",
        ":": " ",
    }
)


class TokenizerName(StrEnum):
    """Name of a tokenizer in a manifest."""

    BASIC_ENGLISH = "basic_english"
    """Words and punctuation, in lower case."""
    BASIC_ENGLISH_CHARACTERS = "basic_english_characters"
    """``basic_english`` over the characters of the text joined with spaces, as in the book's training code."""
    CHARACTERS = "characters"
    """Every character unchanged, including white space."""


def basic_english(text: str) -> list[str]:
    """Return the tokens of ``text``, exactly those of torchtext's ``basic_english``."""
    # Remove quotes first: without them `<b"r />` becomes a line break, as it does in torchtext.
    return text.lower().replace('"', "").replace("<br />", " ").translate(_ONE_PASS).split()


def normalized_basic_english(text: str) -> list[str]:
    """Return the ``basic_english`` tokens of the normalized ``text``."""
    return basic_english(normalized(text))


def basic_english_characters(text: str) -> list[str]:
    """Return the ``basic_english`` tokens of the characters of ``text`` joined with spaces."""
    return basic_english(" ".join(text))


_TOKENIZERS: Final[dict[TokenizerName, Tokenize]] = {
    TokenizerName.BASIC_ENGLISH: basic_english,
    TokenizerName.BASIC_ENGLISH_CHARACTERS: basic_english_characters,
    TokenizerName.CHARACTERS: list,
}


GRAMMAR: Final = (
    f"{', '.join(TokenizerName)}; basic_english may be normalized, and have n-grams of 2 to 5 words and of 2 to 8"
    " characters, as in basic_english+normalized+words:2+characters:3-5"
)
"""Syntax of tokenizer names, in words."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Tokenizer with its options, which a manifest writes as ``basic_english+normalized+words:2+characters:3-5``.

    N-grams follow the tokens that they are made of. An n-gram that the vocabulary lacks is left out; a token that the
    vocabulary lacks is the unknown token.
    """

    name: TokenizerName
    words: int = 1
    """Maximum number of words of an n-gram."""
    characters: tuple[int, int] | None = None
    """Minimum and maximum number of characters of an n-gram."""
    is_normalized: bool = False
    """Whether documents are normalized first (:mod:`predictor.model.normalization`); for ``basic_english`` only."""
    _tokenize: Tokenize = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tokenize = normalized_basic_english if self.is_normalized else _TOKENIZERS[self.name]
        object.__setattr__(self, "_tokenize", tokenize)

    @classmethod
    def parse(cls, text: str) -> Tokenizer:
        """Return the tokenizer that ``text`` names.

        Raises:
            ValueError: ``text`` names no tokenizer; see :data:`GRAMMAR`.
        """
        match = _WRITTEN.fullmatch(text)
        if match is None:
            raise ValueError("the text does not name a tokenizer")
        words, shortest, longest = (int(group) if group else None for group in match.group("words", "from", "to"))
        if shortest is not None and longest is not None and shortest > longest:
            raise ValueError("the text does not name a tokenizer")
        name = TokenizerName(match["name"])
        characters = None if shortest is None or longest is None else (shortest, longest)
        return cls(name, words or 1, characters, match["normalized"] is not None)

    def __str__(self) -> str:
        """Return the tokenizer as a manifest writes it."""
        options = ("+normalized" if self.is_normalized else "") + (f"+words:{self.words}" if self.words > 1 else "")
        return self.name + options + ("+characters:{}-{}".format(*self.characters) if self.characters else "")

    def tokens(self, document: str) -> list[str]:
        """Return the tokens of ``document``, without n-grams."""
        return self._tokenize(document)

    def ngrams(self, tokens: Sequence[str]) -> list[str]:
        """Return the n-grams of a document's tokens: n-grams of words, then those of the characters of each word."""
        found = word_ngrams(tokens, self.words) if self.words > 1 else []
        if self.characters:
            for token in tokens:
                found += character_ngrams(token, *self.characters)
        return found

    @property
    def has_ngrams(self) -> bool:
        """Whether the tokenizer makes n-grams in addition to the tokens of the text."""
        return self.words > 1 or self.characters is not None

    def tokens_at_most(self, document: str) -> int:
        """Return an upper bound on the number of tokens of ``document``, including n-grams, without making them."""
        length = len(document)
        if self.is_normalized and not document.isascii():
            length = len(normalized(document)) if length <= _MOST_COUNTED else length * MAX_GROWTH
        return length * self._tokens_per_character

    @property
    def _tokens_per_character(self) -> int:
        return self.words + (self.characters[1] - self.characters[0] + 1 if self.characters else 0)


_WRITTEN: Final = re.compile(
    r"(?P<name>basic_english_characters|characters|basic_english)"
    r"(?:(?<=basic_english)(?P<normalized>\+normalized)?"
    r"(?:\+words:(?P<words>[2-5]))?(?:\+characters:(?P<from>[2-8])-(?P<to>[2-8]))?)?"
)
