"""A loaded intent model: immutable, and safe to use from several threads."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from predictor.files.tensors import Array
from predictor.folded_network import FoldedNetwork
from predictor.softmax import Winner, softmax, softmax_of_one
from predictor.tokenizer import GRAMMAR, Tokenizer, TokenizerName
from predictor.traffic import Answered, TrafficCounter
from predictor.vocabulary import Vocabulary
from serving.errors import InvalidManifest, InvalidModelFile, InvalidRequest, NonFiniteLogits
from serving.explanation import Explanation, LabelExplanation
from serving.manifest import Manifest
from serving.model_id import ModelId
from serving.prediction import Outcome, Prediction, Query, ScoredLabel

_SPECIAL_TOKEN: Final = re.compile(r"<\w+>|\[[A-Z]+\]")

NO_INDEX: Final = -1
"""The default index that torchtext's own documentation sets to mean that there is none."""

_MOST_CONTRIBUTIONS: Final = 1 << 18
"""Numbers in one explanation."""


class Encoded(NamedTuple):
    """A document as the network takes it, and as it came."""

    tokens: list[str]
    """Of the text, n-grams left out."""
    ngrams: list[str]
    bag: list[int]
    """The indices of those tokens and n-grams that count."""


class IntentModel:
    """Vocabulary, network and labels that fit each other.

    Raises:
        InvalidManifest: the manifest names an unknown tokenizer.
        InvalidModelFile: labels, layers and vocabulary do not fit each other.
    """

    def __init__(self, model_id: ModelId, manifest: Manifest, vocabulary: Vocabulary, network: FoldedNetwork) -> None:
        labels = manifest.labels
        if len(labels) != network.classes:
            raise InvalidModelFile(
                f"manifest.json has {len(labels)} classes and model.pth {network.classes} outputs; they must agree"
            )
        _check_rows(vocabulary, network.vocabulary_size)
        self.model_id = model_id
        self.version = manifest.model_version
        self.labels = labels
        self.baseline = manifest.baseline
        self.tokenizer = choose_tokenizer(manifest, vocabulary)
        self.size = network.size + vocabulary.size + sum(sys.getsizeof(label) for label in labels)
        """Bytes of memory that the model takes."""
        self._confidence = manifest.confidence
        self._vocabulary = vocabulary
        self._indices = vocabulary.indices
        self._default = vocabulary.default_index if vocabulary.default_index != NO_INDEX else None
        self._network = network
        self._fallback_class = labels.index(fallback) if (fallback := manifest.confidence.fallback) in labels else None

    def encode(self, document: str) -> Encoded:
        """Return the document's tokens and their indices.

        Tokens that are not in a vocabulary without a default index are left out: the mean is that of the others. So are
        n-grams that are not in the vocabulary, whatever its default.
        """
        indices, default = self._indices, self._default
        tokens = self.tokenizer.tokens(document)
        bag = [index for token in tokens if (index := indices.get(token, default)) is not None]
        ngrams = self.tokenizer.ngrams(tokens) if self.tokenizer.has_ngrams else []
        if ngrams:
            bag += [index for index in map(indices.get, ngrams) if index is not None]
        return Encoded(tokens, ngrams, bag)

    def predict(self, queries: Sequence[Query], counter: TrafficCounter | None = None) -> list[Outcome]:
        """Return the answer to each query, in order, from one pass through the network.

        Args:
            queries: of this model.
            counter: what the answers are counted in.
        """
        documents = [self.encode(query.document) for query in queries]
        logits = self._network.logits([document.bag for document in documents]).astype(np.float64)
        if (temperature := self._confidence.temperature) != 1.0:
            logits /= temperature
        # For each row on its own the calls would cost more than the network; for one row alone the fewest do.
        with nullcontext() if self._network.always_finite else np.errstate(over="ignore", invalid="ignore"):
            answers = list(softmax_of_one(logits[0]) if len(logits) == 1 else softmax(logits))
        finite: Sequence[bool] | None = None
        if not self._network.always_finite:
            found: Any = np.isfinite(logits).all(axis=1).tolist()
            finite = found
        outcomes: list[Outcome] = []
        counted: list[Answered] = []
        for row, (query, document, answer) in enumerate(zip(queries, documents, answers, strict=True)):
            if finite is not None and not finite[row]:
                outcomes.append(NonFiniteLogits("the model's answer is not a number; train it again"))
                continue
            try:
                prediction = self._prediction(query, document, *answer)
            except InvalidRequest as error:
                outcomes.append(error)
                continue
            outcomes.append(prediction)
            if counter is not None:
                counted.append(self._answered(document, answer, fell_back=prediction.fallback is not None))
        if counter is not None:
            counter.count(counted)
        return outcomes

    def logits(self, documents: Sequence[str]) -> Array:
        """Return the logits of each document, as the network gives them: float32, shape [documents, classes]."""
        return self._network.logits([self.encode(document).bag for document in documents])

    def _prediction(
        self, query: Query, document: Encoded, winner: int, score: float, exponentials: npt.NDArray[Any]
    ) -> Prediction:
        ranked: tuple[ScoredLabel, ...] = ()
        if query.k:
            # Of equal scores the first comes first, as with the label itself.
            order = np.argsort(-exponentials, kind="stable")[: query.k]
            ranked = tuple(ScoredLabel(self.labels[index], float(exponentials[index]) * score) for index in order)
        explanation = None if query.explain is None else self._explanation(document, winner, query.explain)
        label = self.labels[winner]
        fallback = self._confidence.fallback_of(label, score, query.threshold)
        if fallback is not None:
            label = self._confidence.fallback
            score = 0.0 if self._fallback_class is None else float(exponentials[self._fallback_class]) * score
        return Prediction(label, score, ranked, self.model_id, self.version, fallback, explanation)

    def _answered(self, document: Encoded, answer: Winner, *, fell_back: bool) -> Answered:
        tokens = document.tokens
        known = sum(map(self._indices.__contains__, tokens))
        is_empty = not known and (self._default is not None or not document.bag)
        winner, score, _ = answer
        return Answered(len(tokens), len(tokens) - known, is_empty, winner, score, fell_back)

    def _explanation(self, document: Encoded, winner: int, asked: Sequence[str]) -> Explanation:
        """Return the parts of the logits of the best label, and of those that are asked for.

        Raises:
            InvalidRequest: the model has no such label, or the explanation would be too large.
        """
        classes = list(dict.fromkeys((winner, *map(self._class_of, asked))))
        indices = self._indices
        known = [token in indices for token in document.tokens]
        tokens = (*document.tokens, *(ngram for ngram in document.ngrams if ngram in indices))
        if len(tokens) * len(classes) > _MOST_CONTRIBUTIONS:
            raise InvalidRequest("the document is too long to explain so many labels; shorten it, or ask for fewer")
        parts, biases = self._network.contributions(document.bag, classes)
        return Explanation(
            tokens,
            tuple(index for index, is_known in enumerate(known) if not is_known),
            tuple(
                LabelExplanation(self.labels[index], bias + math.fsum(row), bias, self._for_each_token(row, known))
                for index, row, bias in zip(classes, parts.tolist(), biases.tolist(), strict=True)
            ),
            self._confidence.temperature,
        )

    def _for_each_token(self, parts: list[float], known: Sequence[bool]) -> tuple[float, ...]:
        """Return a part for each token: those of ``parts``, and 0 for tokens that are left out."""
        if self._default is not None or all(known):
            return tuple(parts)
        rest = iter(parts)
        return (*(next(rest) if is_known else 0.0 for is_known in known), *rest)

    def _class_of(self, label: str) -> int:
        try:
            return self.labels.index(label)
        except ValueError as error:
            raise InvalidRequest("the model has no such label to explain; ask for labels of its manifest") from error


def choose_tokenizer(manifest: Manifest, vocabulary: Vocabulary) -> Tokenizer:
    """Return the tokenizer that the manifest names, else the one that the vocabulary was made with.

    Raises:
        InvalidManifest: the manifest names a tokenizer that is not known.
    """
    if manifest.tokenizer is None:
        return Tokenizer(tokenizer_of(vocabulary))
    try:
        return Tokenizer.parse(manifest.tokenizer)
    except ValueError as error:
        raise InvalidManifest(f"manifest.json: Tokenizer must be left out or one of {GRAMMAR}") from error


def tokenizer_of(vocabulary: Vocabulary) -> TokenizerName:
    """Return the tokenizer that a vocabulary was made with.

    A vocabulary whose every token but the special ones is one character is a character vocabulary: the book's
    training code joined the characters of each text with spaces. One with white space or capitals in it cannot have
    come from ``basic_english`` at all, so its documents are taken character by character as they stand.
    """
    characters = set()
    for index, token in enumerate(vocabulary.tokens):
        if len(token) == 1:
            characters.add(token)
        elif index != vocabulary.default_index and not _SPECIAL_TOKEN.fullmatch(token):
            return TokenizerName.BASIC_ENGLISH
    if any(character.isspace() or character != character.lower() for character in characters):
        return TokenizerName.CHARACTERS
    return TokenizerName.BASIC_ENGLISH_CHARACTERS if characters else TokenizerName.BASIC_ENGLISH


def _check_rows(vocabulary: Vocabulary, rows: int) -> None:
    if len(vocabulary) > rows:
        raise InvalidModelFile(
            f"vocab.pth has {len(vocabulary)} tokens and model.pth {rows} rows; publish them together"
        )
    default = vocabulary.default_index
    wrong_default = default is not None and default != NO_INDEX and not 0 <= default < rows
    if vocabulary.lowest < 0 or vocabulary.highest >= rows or wrong_default:
        raise InvalidModelFile(f"vocab.pth has an index that is not one of the {rows} rows of model.pth")
