"""N-grams of a document's words: additional tokens, written so that none equals a word or an n-gram of the other kind.

Words of ``basic_english`` contain neither white space nor ``"``. An n-gram of words contains spaces; an n-gram of
characters begins with ``"``. Its characters are those of one word with a space before and after it, so that n-grams
show where words begin and end, and a word has the same n-grams wherever it occurs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from operator import add
from typing import Final

MARK: Final = '"'
"""First character of n-grams of characters."""

Span = tuple[int, int]


def word_ngrams(words: Sequence[str], longest: int) -> list[str]:
    """Return the n-grams of 2 to ``longest`` words, the shorter ones first."""
    found: list[str] = []
    grown: Sequence[str] = words
    for size in range(2, longest + 1):
        # Each n-gram is a shorter one with one more word.
        grown = [f"{ngram} {word}" for ngram, word in zip(grown, words[size - 1 :], strict=False)]
        found += grown
    return found


def character_ngrams(word: str, shortest: int, longest: int) -> list[str]:
    """Return the n-grams of ``shortest`` to ``longest`` characters of a word, the shorter ones first."""
    text = f" {word} "
    found: list[str] = []
    # Each n-gram is a shorter one with one more character, which costs half as much as slicing it from the text.
    grown = [MARK + character for character in text]
    for size in range(2, longest + 1):
        grown = list(map(add, grown, text[size - 1 :]))
        if size >= shortest:
            found += grown
    return found


def is_ngram(token: str) -> bool:
    """Return whether ``token`` is an n-gram."""
    return len(token) > 1 and (token[0] == MARK or " " in token)


def spans(tokens: Sequence[str]) -> list[Span]:
    """Return for each token the first word that it covers, and the one after the last; a word covers itself.

    Args:
        tokens: the words of a document, then n-grams of words, then n-grams of the characters of each word, as
            explanations list them: each kind in order, and each n-gram at every place where the document has it.
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
