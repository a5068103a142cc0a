"""From tokenized texts to a vocabulary: words in torchtext's order of ``build_vocab_from_iterator``, then n-grams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from predictor.model.vocabulary import UNKNOWN_TOKEN, Vocabulary


def build_vocabulary(documents: Iterable[Sequence[str]], minimum_frequency: int = 1) -> Vocabulary:
    """Return the vocabulary of ``documents``, each a sequence of tokens.

    ``<unk>`` comes first and is the default; then the most frequent tokens, those of one frequency by code points.
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
    """Return ``vocabulary`` with the n-grams behind its tokens that stand in the most documents, as many as fit.

    Args:
        vocabulary: of the words.
        documents: the n-grams of each.
        minimum_frequency: in how many documents an n-gram must stand.
        row_bytes: what a token takes beside its text.
        most_bytes: what all tokens may take. Words that do not fit are left out, the rarest first.
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
