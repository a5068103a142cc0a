"""From tokenized texts to a vocabulary, in the order that torchtext's ``build_vocab_from_iterator`` gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from predictor.vocabulary import UNKNOWN_TOKEN, Vocabulary


def build_vocabulary(documents: Iterable[Sequence[str]], minimum_frequency: int = 1) -> Vocabulary:
    """Return the vocabulary of ``documents``, each a sequence of tokens.

    ``<unk>`` comes first and is the default; then the most frequent tokens, those of one frequency by code points.
    """
    frequencies = Counter(token for document in documents for token in document)
    del frequencies[UNKNOWN_TOKEN]
    frequent = [token for token, count in frequencies.items() if count >= minimum_frequency]
    ordered = sorted(frequent, key=lambda token: (-frequencies[token], token))
    return Vocabulary.of([UNKNOWN_TOKEN, *ordered], default_index=0)
