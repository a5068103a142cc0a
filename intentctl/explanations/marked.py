"""The document as it was written, with the positions of its words."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from predictor.model.ngrams import MARK
from predictor.model.normalization import normalized
from serving.telemetry.foreign_text import shown

_BREAK: Final = "<br />"
_DROPPED: Final = f"{string.whitespace};:{MARK}"
_SPACE: Final = "␣"

Place = tuple[int, int]
"""Index of the first character of a part of the document, and of the one after it."""


class Piece(NamedTuple):
    """A piece of the document."""

    text: str
    word: int | None
    """Index of the word; ``None`` for text between words."""


def pieces_of(document: str, words: Sequence[str]) -> list[Piece]:
    """Return the document in pieces; if its words are not found in it, the words with spaces between them.

    Tokenizers lowercase the text, normalize it and drop some of it, and do not record where in the document a token
    was.
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
        # Several words may come from one character, as those of an ellipsis; the first one shows it.
        pieces.append(Piece(document[max(start, end) : behind], index))
        end = behind
    if end < len(document):
        pieces.append(Piece(document[end:], None))
    return pieces


def shown_token(token: str) -> str:
    """Return a token in readable form: n-grams of characters without their mark, and with visible spaces."""
    if len(token) > 1 and token.startswith(MARK):
        return shown(token[1:]).replace(" ", _SPACE)
    return shown(token) if token.strip(" ") else token.replace(" ", _SPACE)


def _places(document: str, words: Sequence[str]) -> list[Place] | None:
    for text, origins in _readings(document):
        # If the tokenizer drops quotes, a word may have contained some.
        for dropped in ("", MARK):
            kept = [index for index, character in enumerate(text) if character != dropped]
            found = _found("".join(map(text.__getitem__, kept)), words)
            if found is not None:
                return [(origins[kept[start]][0], origins[kept[behind - 1]][1]) for start, behind in found]
    return None


def _readings(document: str) -> Iterator[tuple[str, Sequence[Place]]]:
    """Yield the document as tokenizers read it, each with the origin of every character in the document."""
    unchanged = [(index, index + 1) for index in range(len(document))]
    yield document, unchanged
    lowered = _without_breaks(document.lower())
    if len(lowered) == len(document):
        yield lowered, unchanged
    if not document.isascii():
        pieces = [
            (normalized(document[start:behind]).lower(), (start, behind)) for start, behind in _clusters(document)
        ]
        text = _without_breaks("".join(piece for piece, _ in pieces))
        yield text, [place for piece, place in pieces for _ in piece]


def _without_breaks(text: str) -> str:
    return text.replace(_BREAK, " " * len(_BREAK))


def _clusters(document: str) -> Iterator[Place]:
    """Yield the place of each character together with the combining characters that follow it."""
    start = 0
    for index in range(1, len(document) + 1):
        if index == len(document) or not unicodedata.combining(document[index]):
            yield start, index
            start = index


def _found(text: str, words: Sequence[str]) -> list[Place] | None:
    """Return the positions of the words, in order and with nothing between them but what tokenizers drop."""
    places: list[Place] = []
    end = 0
    for word in words:
        start = text.find(word, end)
        if start < 0 or text[end:start].strip(_DROPPED):
            return None
        end = start + len(word)
        places.append((start, end))
    return None if text[end:].strip(_DROPPED) else places
