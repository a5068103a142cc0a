"""From a document to its tokens, as torchtext's ``basic_english`` does it.

The source of the behaviour is ``torchtext.data.utils.get_tokenizer("basic_english")``, the same in releases 0.2 to
0.18: lower the text, apply twelve substitutions in order, split on white space. Those substitutions only put spaces
around some characters and drop others, so after quotes and ``<br />`` are gone one pass gives the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

Tokenize = Callable[[str], list[str]]

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
    """How a manifest names its tokenizer."""

    BASIC_ENGLISH = "basic_english"
    """Words and punctuation, lowered."""
    BASIC_ENGLISH_CHARACTERS = "basic_english_characters"
    """``basic_english`` over the characters of the text joined with spaces: what the book's training code did."""
    CHARACTERS = "characters"
    """Every character as it stands, white space included."""


def basic_english(text: str) -> list[str]:
    """Return the tokens of ``text``, exactly those of torchtext's ``basic_english``."""
    # Quotes go first: without them `<b"r />` becomes a line break, as it does in torchtext.
    return text.lower().replace('"', "").replace("<br />", " ").translate(_ONE_PASS).split()


def basic_english_characters(text: str) -> list[str]:
    """Return the ``basic_english`` tokens of the characters of ``text`` joined with spaces."""
    return basic_english(" ".join(text))


def tokenizer(name: TokenizerName) -> Tokenize:
    """Return the tokenizer of that name."""
    return _TOKENIZERS[name]


_TOKENIZERS: Final[dict[TokenizerName, Tokenize]] = {
    TokenizerName.BASIC_ENGLISH: basic_english,
    TokenizerName.BASIC_ENGLISH_CHARACTERS: basic_english_characters,
    TokenizerName.CHARACTERS: list,
}
