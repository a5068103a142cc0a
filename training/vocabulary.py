"""Vocabulary of tokenized texts: words in the order of torchtext's ``build_vocab_from_iterator``, then n-grams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from predictor.model.vocabulary import UNKNOWN_TOKEN, Vocabulary


def build_vocabulary(documents: Iterable[Sequence[str]], minimum_frequency: int = 1) -> Vocabulary:
    """Return the vocabulary of ``documents``, each a sequence of tokens.

    ``<unk>`` comes first and is the default; then the most frequent tokens, with ties ordered by code points.
    """
    frequencies = Counter(token for document in documents for token in document)
    del frequencies[UNKNOWN_TOKEN]
    return Vocabulary.of([UNKNOWN_TOKEN, *_by_frequency(frequencies, minimum_frequency)], default_index=0)


def with_ngrams(
    vocabulary: Vocabulary,
    documents: Iterable[Sequence[str]],
    *,
    minimum_frequency: int,
    row_bytes: int,
    most_bytes: int,
) -> Vocabulary:
    """Return ``vocabulary`` followed by the n-grams that occur in the most documents, as many as fit.

    Args:
        vocabulary: the vocabulary of the words.
        documents: the n-grams of each document.
        minimum_frequency: minimum number of documents in which an n-gram must occur.
        row_bytes: bytes that a token takes in addition to its text.
        most_bytes: maximum bytes of all tokens. Words that do not fit are left out, the rarest first.
    """
    frequencies = Counter(ngram for document in documents for ngram in set(document))
    kept: list[str] = []
    left = most_bytes
    for token in (*vocabulary.tokens, *_by_frequency(frequencies, minimum_frequency)):
        left -= row_bytes + len(token.encode("utf-8", "surrogatepass"))
        if left < 0:
            break
        kept.append(token)
    return Vocabulary.of(kept, default_index=0)


def _by_frequency(frequencies: Counter[str], minimum: int) -> list[str]:
    frequent = [token for token, count in frequencies.items() if count >= minimum]
    return sorted(frequent, key=lambda token: (-frequencies[token], token))
