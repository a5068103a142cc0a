"""Finds the n-grams of a document in a vocabulary: those of characters all at once.

An n-gram of characters is written as one number: the characters that the vocabulary's n-grams consist of are counted,
and each takes the same few of its bits. So those of a document are a few array operations, and which of them the
vocabulary has tells a search among its sorted numbers. A dictionary takes twice as long, most of it for their texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from predictor.folded_network import Bag
from predictor.ngrams import MARK, word_ngrams
from predictor.tokenizer import Tokenizer
from predictor.vocabulary import Vocabulary

Indices: TypeAlias = npt.NDArray[np.intp]
Numbers: TypeAlias = npt.NDArray[np.signedinteger[Any]]

_KINDS: Final = (np.int32, np.int64)
"""The smaller one takes half of the memory, and less of the processor's."""
_NOTHING: Final = 0
"""Stands behind the characters of an n-gram that is shorter than the longest."""
_NO_CHARACTER: Final = 1
"""Stands for each character that no n-gram has, and behind the text, so that n-grams end where it does."""
_FIRST_CHARACTER: Final = 2


class NgramIndex:
    """The n-grams of a vocabulary, as a tokenizer makes them. Immutable, and safe to use from several threads."""

    __slots__ = ("_characters", "_tokenizer", "_vocabulary")

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._characters: _CharacterNgrams | None = None
        if tokenizer.characters is not None and _is_ordered(vocabulary):
            self._characters = _CharacterNgrams.of(vocabulary.indices, *tokenizer.characters)

    @property
    def size(self) -> int:
        """Bytes of memory, without the vocabulary's."""
        return self._characters.size if self._characters else 0

    def extended(self, bag: Sequence[int], words: Sequence[str]) -> Indices:
        """Return ``bag`` with the indices of those n-grams of ``words`` that the vocabulary has, in their order."""
        indices = self._vocabulary.indices
        ngrams = (
            self._tokenizer.ngrams(words) if self._characters is None else word_ngrams(words, self._tokenizer.words)
        )
        found = [index for index in map(indices.get, ngrams) if index is not None]
        longer = np.array([*bag, *found], dtype=np.intp)
        return longer if self._characters is None else np.concatenate((longer, self._characters.find(words)))

    def texts(self, words: Sequence[str], found: Bag) -> tuple[str, ...]:
        """Return the n-grams whose indices :meth:`extended` found for ``words``."""
        if self._characters is None:
            return tuple(ngram for ngram in self._tokenizer.ngrams(words) if ngram in self._vocabulary.indices)
        tokens, at = self._vocabulary.tokens, np.asarray(found).tolist()
        # A getter of many is the fastest way to many, and one of one gives no tuple.
        return itemgetter(*at)(tokens) if len(at) > 1 else tuple(tokens[index] for index in at)


class _CharacterNgrams:
    """The n-grams of characters in a vocabulary, as sorted numbers."""

    __slots__ = ("_behind", "_indices", "_masks", "_numbers", "_places", "_weights")

    def __init__(self, numbers: Numbers, indices: Indices, places: Numbers, bits: int, sizes: range) -> None:
        longest = sizes[-1]
        # With a last number that no n-gram has, every search ends at a place that is there.
        self._numbers = np.append(numbers, numbers.dtype.type(np.iinfo(numbers.dtype).max))
        self._indices = np.append(indices, 0)
        self._places = places
        self._weights = _weights(bits, longest, numbers.dtype.type)
        masks = [((1 << bits * size) - 1) << bits * (longest - size) for size in sizes]
        self._masks = np.array(masks, dtype=numbers.dtype)[:, np.newaxis]
        self._behind = MARK * (longest - 1)

    @classmethod
    def of(cls, indices: Mapping[str, int], shortest: int, longest: int) -> Self | None:
        """Return those of ``shortest`` to ``longest`` characters.

        Returns:
            None where they have too many different characters for 63 bits: more than 4,094 where the longest have 5,
            126 where they have 8.
        """
        found = {
            token: index
            for token, index in indices.items()
            if token[:1] == MARK and shortest < len(token) <= longest + 1
        }
        characters = sorted(set("".join(found)) - {MARK})
        bits = (len(characters) + _FIRST_CHARACTER - 1).bit_length()
        kind = next((kind for kind in _KINDS if bits * longest < np.iinfo(kind).bits), None)
        if kind is None:
            return None
        places: Numbers = np.full(ord(max(characters, default="\0")) + 2, _NO_CHARACTER, dtype=kind)
        places[_codes("".join(characters))] = np.arange(len(characters)) + _FIRST_CHARACTER
        codes = np.array([*found], dtype=f"U{longest + 1}").view(np.uint32).reshape(-1, longest + 1)
        written: Numbers = places.take(codes[:, 1:], mode="clip")
        lengths = np.fromiter(map(len, found), dtype=np.intp, count=len(found)) - len(MARK)
        written[np.arange(longest) >= lengths[:, np.newaxis]] = _NOTHING
        # No word has the mark, so what has it within is no n-gram of any document.
        valid = (written != _NO_CHARACTER).all(axis=1)
        numbers: Numbers = written[valid] @ _weights(bits, longest, kind)
        order = numbers.argsort()
        at = np.fromiter(found.values(), dtype=np.intp, count=len(found))[valid]
        return cls(numbers[order], at[order], places, bits, range(shortest, longest + 1))

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return self._numbers.nbytes + self._indices.nbytes + self._places.nbytes

    def find(self, words: Sequence[str]) -> Indices:
        """Return the indices of the document's n-grams, as :func:`~predictor.ngrams.character_ngrams` orders them."""
        if not words:
            return self._indices[:0]
        places = self._places.take(_codes(f" {' '.join(words)} {self._behind}"), mode="clip")
        # A row a size, and in it an n-gram for each character that it begins with.
        wanted = (np.correlate(places, self._weights) & self._masks).ravel()
        at = self._numbers.searchsorted(wanted)
        found: Indices = self._indices.take(at[self._numbers.take(at) == wanted])
        return found


def _is_ordered(vocabulary: Vocabulary) -> bool:
    """Return whether the token of each index is where that index says; of vocabularies of old it need not be."""
    tokens, indices = vocabulary.tokens, vocabulary.indices
    return tuple(indices) == tokens and [*indices.values()] == [*range(len(tokens))]


def _weights(bits: int, longest: int, kind: type[np.signedinteger[Any]]) -> Numbers:
    """Return what each character of an n-gram is multiplied with, the first one first."""
    return np.array([1 << bits * place for place in reversed(range(longest))], dtype=kind)


def _codes(text: str) -> npt.NDArray[np.unsignedinteger[Any]]:
    if text.isascii():
        return np.frombuffer(text.encode(), dtype=np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
