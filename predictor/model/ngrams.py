"""N-grams of a document's words: further tokens, written so that no word and no n-gram of another kind is like them.

Words of ``basic_english`` hold neither white space nor ``"``. An n-gram of words has spaces within; one of characters
begins with ``"``. Characters are those of one word with a space before and behind it, so that n-grams tell where words
begin and end, and those of a word are the same wherever it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from operator import add
from typing import Final

MARK: Final = '"'
"""What n-grams of characters begin with."""

Span = tuple[int, int]


def word_ngrams(words: Sequence[str], longest: int) -> list[str]:
    """Return the n-grams of 2 to ``longest`` words, the shorter ones first."""
    found: list[str] = []
    grown: Sequence[str] = words
    for size in range(2, longest + 1):
        # Each is the one before with one more word.
        grown = [f"{ngram} {word}" for ngram, word in zip(grown, words[size - 1 :], strict=False)]
        found += grown
    return found


def character_ngrams(word: str, shortest: int, longest: int) -> list[str]:
    """Return the n-grams of ``shortest`` to ``longest`` characters of a word, the shorter ones first."""
    text = f" {word} "
    found: list[str] = []
    # Each is the one before with one more character, which costs half of what cutting it out of the text does.
    grown = [MARK + character for character in text]
    for size in range(2, longest + 1):
        grown = list(map(add, grown, text[size - 1 :]))
        if size >= shortest:
            found += grown
    return found


def is_ngram(token: str) -> bool:
    """Return whether ``token`` is made of other tokens."""
    return len(token) > 1 and (token[0] == MARK or " " in token)


def spans(tokens: Sequence[str]) -> list[Span]:
    """Return of each token the first word, and the one behind the last, that it is of: a word is of itself.

    Args:
        tokens: the words of a document, then n-grams of words, then those of the characters of each word; each in their
            order, and each that is there wherever the document has it, as explanations list them.
    """
    words = list(takewhile(lambda token: not is_ngram(token), tokens))
    others = tokens[len(words) :]
    known = set(others)
    found = [(index, index + 1) for index in range(len(words))]
    found += [
        (start, start + size)
        for size in sorted({token.count(" ") + 1 for token in known if token[0] != MARK})
        for start in range(len(words) - size + 1)
        if " ".join(words[start : start + size]) in known
    ]
    sizes = sorted({len(token) - len(MARK) for token in known if token[0] == MARK})
    for index, word in enumerate(words):
        text = f" {word} "
        found += [
            (index, index + 1)
            for size in sizes
            for start in range(len(text) - size + 1)
            if MARK + text[start : start + size] in known
        ]
    return found
