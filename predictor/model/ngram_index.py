"""Finds the n-grams of documents in a vocabulary, and remembers those of words.

A document's n-grams of characters are those of its words, and people use few words: a word whose n-grams are remembered
takes a tenth of the work.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Final

from predictor.model.ngrams import character_ngrams, word_ngrams
from predictor.model.tokenizer import Tokenizer
from predictor.model.vocabulary import Vocabulary

_MOST_WORDS: Final = 2048
"""Maximum number of words whose n-grams are remembered."""
_LONGEST_WORD: Final = 32
"""Maximum number of characters of a remembered word; longer ones are not words that recur."""
_BYTES_PER_WORD: Final = 320
"""Bytes of a remembered word with a dozen n-grams, in CPython: text, tuple and entry of the dictionary."""


class NgramIndex:
    """N-grams of a vocabulary, as a tokenizer makes them. Safe to use from several threads.

    Args:
        tokenizer: makes the n-grams.
        vocabulary: the n-grams to find, with their indices.
        most_words: maximum number of words whose n-grams are remembered.
    """

    __slots__ = ("_indices", "_most_words", "_of_words", "_tokenizer", "_tokens")

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary, most_words: int = _MOST_WORDS) -> None:
        self._tokenizer = tokenizer
        self._indices = vocabulary.indices
        self._tokens = vocabulary.tokens if _is_ordered(vocabulary) else None
        self._most_words = most_words
        self._of_words: dict[str, tuple[int, ...]] = {}

    @property
    def size(self) -> int:
        """Bytes of memory, without the vocabulary's, once the maximum number of words is remembered."""
        return sys.getsizeof(self._of_words) + self._most_words * _BYTES_PER_WORD if self._tokenizer.characters else 0

    def extended(self, bag: Sequence[int], words: Sequence[str]) -> list[int]:
        """Return ``bag`` followed by the indices of the n-grams of ``words`` that the vocabulary has, in order."""
        found = [*bag, *self._known(word_ngrams(words, self._tokenizer.words))]
        if self._tokenizer.characters is not None:
            of_words = self._of_words
            for word in words:
                of_word = of_words.get(word)
                found += self._looked_up(word) if of_word is None else of_word
        return found

    def texts(self, words: Sequence[str], found: Sequence[int]) -> Iterable[str]:
        """Return the n-grams whose indices :meth:`extended` found for ``words``."""
        if self._tokens is None:
            return [ngram for ngram in self._tokenizer.ngrams(words) if ngram in self._indices]
        return map(self._tokens.__getitem__, found)

    def _looked_up(self, word: str) -> tuple[int, ...]:
        assert self._tokenizer.characters is not None  # noqa: S101 - for the types
        found = tuple(self._known(character_ngrams(word, *self._tokenizer.characters)))
        if len(word) <= _LONGEST_WORD:
            if len(self._of_words) >= self._most_words:
                # Tracking which words were used last would cost the lookups more than computing all of them again.
                self._of_words.clear()
            self._of_words[word] = found
        return found

    def _known(self, ngrams: Sequence[str]) -> list[int]:
        return [index for index in map(self._indices.get, ngrams) if index is not None]


def _is_ordered(vocabulary: Vocabulary) -> bool:
    """Return whether the index of each token is its position; in old vocabularies it need not be."""
    tokens, indices = vocabulary.tokens, vocabulary.indices
    return tuple(indices) == tokens and [*indices.values()] == [*range(len(tokens))]
