"""Contributions of the words and the tokens of a document to the logit of a label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from predictor.model.ngrams import MARK, is_ngram, spans
from serving.domain.explanation import Explanation, LabelExplanation


class Word(NamedTuple):
    """A word of the document, or another unit that its tokenizer treats as one, and what it adds."""

    text: str
    own: float
    """Contribution of the word by itself."""
    of_ngrams: float
    """Share of the n-grams that the word is part of; each is divided equally among the words that it overlaps."""
    is_unknown: bool
    """Whether the vocabulary lacks the word."""

    @property
    def adds(self) -> float:
        """Sum of both contributions; over all words, the sum equals what all tokens add."""
        return self.own + self.of_ngrams


class Token(NamedTuple):
    """A token, over all its occurrences in the document, and what it adds."""

    text: str
    kind: str
    """Constituents of the token: a word, several words, or characters."""
    times: int
    adds: float
    """Sum over all occurrences."""
    is_unknown: bool


def words_of(explanation: Explanation, label: LabelExplanation) -> list[Word]:
    """Return the words of the document in their order."""
    places = spans(explanation.tokens)
    words = sum(not is_ngram(token) for token in explanation.tokens)
    shares: list[list[float]] = [[] for _ in range(words)]
    for (start, end), adds in zip(places[words:], label.contributions[words:], strict=True):
        for word in range(start, end):
            shares[word].append(adds / (end - start))
    unknown = set(explanation.unknown)
    return [
        Word(text, label.contributions[index], math.fsum(shares[index]), index in unknown)
        for index, text in enumerate(explanation.tokens[:words])
    ]


def tokens_of(explanation: Explanation, label: LabelExplanation) -> list[Token]:
    """Return the distinct tokens of the document, those that add or subtract most first."""
    parts: dict[str, list[float]] = {}
    for token, adds in zip(explanation.tokens, label.contributions, strict=True):
        parts.setdefault(token, []).append(adds)
    unknown = {explanation.tokens[index] for index in explanation.unknown}
    tokens = [Token(text, _kind(text), len(adds), math.fsum(adds), text in unknown) for text, adds in parts.items()]
    return sorted(tokens, key=lambda token: -abs(token.adds))


def strength(words: Sequence[Word]) -> list[float]:
    """Return what each word adds as a share of the most that any word adds or subtracts, from -1 to 1."""
    most = max((abs(word.adds) for word in words), default=0.0) or 1.0
    return [word.adds / most for word in words]


def _kind(token: str) -> str:
    if not is_ngram(token):
        return "word"
    return "characters" if token.startswith(MARK) else "words"
