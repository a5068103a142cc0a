"""The document as it was written, with the positions of its words."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Final, NamedTuple

from intentctl.foreign_text import shown
from predictor.model.ngrams import MARK

_BREAK: Final = "<br />"
_DROPPED: Final = f"{string.whitespace};:{MARK}"
_SPACE: Final = "␣"


class Piece(NamedTuple):
    """A piece of the document."""

    text: str
    word: int | None
    """Index of the word; ``None`` for text between words."""


def pieces_of(document: str, words: Sequence[str]) -> list[Piece]:
    """Return the document in pieces; if its words are not found in it, the words with spaces between them.

    Tokenizers lowercase the text and drop some of it, and do not record where in the document a token was.
    """
    places = _places(document, words)
    if places is None:
        spaced = [piece for index, word in enumerate(words) for piece in (Piece(" ", None), Piece(word, index))]
        return spaced[1:]
    pieces: list[Piece] = []
    end = 0
    for index, (start, behind) in enumerate(places):
        if start > end:
            pieces.append(Piece(document[end:start], None))
        pieces.append(Piece(document[start:behind], index))
        end = behind
    if end < len(document):
        pieces.append(Piece(document[end:], None))
    return pieces


def shown_token(token: str) -> str:
    """Return a token in readable form: n-grams of characters without their mark, and with visible spaces."""
    if len(token) > 1 and token.startswith(MARK):
        return shown(token[1:]).replace(" ", _SPACE)
    return shown(token) if token.strip(" ") else token.replace(" ", _SPACE)


def _places(document: str, words: Sequence[str]) -> list[tuple[int, int]] | None:
    for text in (document, document.lower().replace(_BREAK, " " * len(_BREAK))):
        if len(text) != len(document):
            continue
        # If the tokenizer drops quotes, a word may have contained some.
        for dropped in ("", MARK):
            kept = [index for index, character in enumerate(text) if character != dropped]
            found = _found("".join(map(text.__getitem__, kept)), words)
            if found is not None:
                return [(kept[start], kept[behind - 1] + 1) for start, behind in found]
    return None


def _found(text: str, words: Sequence[str]) -> list[tuple[int, int]] | None:
    """Return the positions of the words, in order and with nothing between them but what tokenizers drop."""
    places: list[tuple[int, int]] = []
    end = 0
    for word in words:
        start = text.find(word, end)
        if start < 0 or text[end:start].strip(_DROPPED):
            return None
        end = start + len(word)
        places.append((start, end))
    return None if text[end:].strip(_DROPPED) else places
