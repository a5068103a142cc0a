"""A loaded intent model: immutable, and safe to use from several threads."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from predictor.model.files.tensors import Array
from predictor.model.folded_network import FoldedNetwork
from predictor.model.ngram_index import NgramIndex
from predictor.model.softmax import Winner, softmax, softmax_of_one
from predictor.model.tokenizer import GRAMMAR, Tokenizer, TokenizerName
from predictor.model.traffic_counter import TrafficCounter
from predictor.model.vocabulary import Vocabulary
from serving.domain.errors import InvalidManifest, InvalidModelFile, InvalidRequest, NonFiniteLogits
from serving.domain.explanation import Explanation, LabelExplanation
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.domain.prediction import Outcome, Prediction, Query, ScoredLabel

_SPECIAL_TOKEN: Final = re.compile(r"<\w+>|\[[A-Z]+\]")

NO_INDEX: Final = -1
"""Default index that torchtext's own documentation uses for "no default"."""

_MOST_CONTRIBUTIONS: Final = 1 << 18
"""Maximum number of contributions in one explanation."""


class Encoded(NamedTuple):
    """A document as tokens, and as the indices that the network takes."""

    tokens: list[str]
    """Tokens of the text, without n-grams."""
    unknown: int
    """Number of these tokens that the vocabulary lacks."""
    bag: list[int]
    """Indices that the network takes: those of the text's tokens, then those of the n-grams."""
    ngrams: int
    """Number of n-grams among these indices."""


class IntentModel:
    """Vocabulary, network and labels that match each other.

    Raises:
        InvalidManifest: the manifest names an unknown tokenizer.
        InvalidModelFile: labels, layers and vocabulary do not match each other.
    """

    def __init__(self, model_id: ModelId, manifest: Manifest, vocabulary: Vocabulary, network: FoldedNetwork) -> None:
        labels = manifest.labels
        if len(labels) != network.classes:
            raise InvalidModelFile(
                f"manifest.json has {len(labels)} classes, but model.pth has {network.classes} outputs; "
                "the numbers must agree"
            )
        _check_rows(vocabulary, network.vocabulary_size)
        self.model_id = model_id
        self.version = manifest.model_version
        self.labels = labels
        self.baseline = manifest.baseline
        self.tokenizer = choose_tokenizer(manifest, vocabulary)
        self._ngrams = NgramIndex(self.tokenizer, vocabulary) if self.tokenizer.has_ngrams else None
        self.size = network.size + vocabulary.size + _bytes_of_texts(labels)
        """Bytes of memory that the model takes."""
        if manifest.baseline is not None:
            self.size += sys.getsizeof(manifest.baseline.labels) + _bytes_of_texts(manifest.baseline.labels)
        if self._ngrams is not None:
            self.size += self._ngrams.size
        self.confidence = manifest.confidence
        self._vocabulary = vocabulary
        self._indices = vocabulary.indices
        self._default = vocabulary.default_index if vocabulary.default_index != NO_INDEX else None
        self._network = network
        self._fallback_class = labels.index(fallback) if (fallback := manifest.confidence.fallback) in labels else None

    def encode(self, document: str) -> Encoded:
        """Return the document's tokens and their indices.

        If the vocabulary has no default index, unknown tokens are left out, and the mean is that of the other tokens.
        Unknown n-grams are always left out.
        """
        tokens = self.tokenizer.tokens(document)
        found: list[Any] = list(map(self._indices.get, tokens))
        unknown = found.count(None)
        if unknown:
            default = self._default
            found = [default if index is None else index for index in found if index is not None or default is not None]
        if self._ngrams is None:
            return Encoded(tokens, unknown, found, 0)
        bag = self._ngrams.extended(found, tokens)
        return Encoded(tokens, unknown, bag, len(bag) - len(found))

    def predict(self, queries: Sequence[Query], counter: TrafficCounter | None = None) -> list[Outcome]:
        """Return the answer to each query, in order, from one pass through the network.

        Args:
            queries: queries of this model.
            counter: counter that counts the answers.
        """
        finite_for_sure = self.is_always_finite
        if len(queries) == 1 and finite_for_sure:
            return [self._outcome_of_one(queries[0], counter)]
        documents = [self.encode(query.document) for query in queries]
        logits = self._network.logits([document.bag for document in documents]).astype(np.float64)
        # Process all rows at once: separate calls for each row would cost more than the network.
        with nullcontext() if finite_for_sure else np.errstate(over="ignore", invalid="ignore"):
            logits /= self.confidence.temperature
            answers = list(softmax(logits))
        if not finite_for_sure:
            finite: Any = np.isfinite(logits).all(axis=1).tolist()
            return [
                self.outcome(query, document, None, answer, counter) if is_finite else _not_a_number()
                for query, document, answer, is_finite in zip(queries, documents, answers, finite, strict=True)
            ]
        return [
            self.outcome(query, document, None, answer, counter)
            for query, document, answer in zip(queries, documents, answers, strict=True)
        ]

    def _outcome_of_one(self, query: Query, counter: TrafficCounter | None) -> Outcome:
        """Return the answer to a single query with as few calls as possible, since the calls dominate the cost.

        REQUIRES: the network is ``always_finite``.
        """
        document = self.encode(query.document)
        rows = self._network.rows(document.bag)
        logits = self._network.logits_of_rows(rows).astype(np.float64)
        logits /= self.confidence.temperature
        return self.outcome(query, document, rows, softmax_of_one(logits), counter)

    def outcome(
        self, query: Query, document: Encoded, rows: Array | None, answer: Winner, counter: TrafficCounter | None
    ) -> Outcome:
        """Return the answer to a query, and count it.

        Args:
            query: the query.
            document: its encoded document.
            rows: embedding rows of the document's tokens, if the caller has them.
            answer: the winner among its logits.
            counter: counter that counts the answer.
        """
        try:
            prediction = self._prediction(query, document, rows, *answer)
        except InvalidRequest as error:
            return error
        if counter is not None:
            tokens, unknown, _, ngrams = document
            is_empty = unknown == len(tokens) and not ngrams
            fell_back = prediction.fallback is not None
            counter.count(len(tokens), unknown, answer[0], answer[1], is_empty=is_empty, fell_back=fell_back)
        return prediction

    @property
    def is_always_finite(self) -> bool:
        """Whether the logits of every possible document are finite."""
        return self._network.always_finite

    def write_logits(self, document: Encoded, to: Array) -> None:
        """Write the network's logits of a document to an array of shape [classes]."""
        self._network.write_logits_of_rows(self._network.rows(document.bag), to)

    def logits(self, documents: Sequence[str]) -> Array:
        """Return the network's logits of each document: float32, shape [documents, classes]."""
        return self._network.logits([self.encode(document).bag for document in documents])

    def _prediction(  # noqa: PLR0917 - the last three are a winner
        self,
        query: Query,
        document: Encoded,
        rows: Array | None,
        winner: int,
        score: float,
        exponentials: npt.NDArray[Any],
    ) -> Prediction:
        ranked: tuple[ScoredLabel, ...] = ()
        if query.k:
            # Equal scores keep the order of the outputs, as for the label itself.
            order = np.argsort(-exponentials, kind="stable")[: query.k]
            ranked = tuple(ScoredLabel(self.labels[index], float(exponentials[index]) * score) for index in order)
        explanation = None
        if query.explain is not None:
            classes = self._classes_to_explain(winner, query.explain, exponentials)
            explanation = self._explanation(document, rows, classes)
        label = self.labels[winner]
        fallback = self.confidence.fallback_of(label, score, query.threshold)
        if fallback is not None:
            label = self.confidence.fallback
            score = 0.0 if self._fallback_class is None else float(exponentials[self._fallback_class]) * score
        return Prediction(label, score, ranked, self.model_id, self.version, fallback, explanation)

    def _explanation(self, document: Encoded, rows: Array | None, classes: Sequence[int]) -> Explanation:
        """Return the parts of the logits of ``classes``.

        Raises:
            InvalidRequest: the explanation would have too many parts.
        """
        words, unknown_words, bag, ngrams = document
        ngram_texts = self._ngrams.texts(words, bag[-ngrams:]) if ngrams and self._ngrams is not None else ()
        tokens = (*words, *ngram_texts)
        if len(tokens) * len(classes) > _MOST_CONTRIBUTIONS:
            raise InvalidRequest("the document is too long to explain so many labels; shorten it, or request fewer")
        unknown: tuple[int, ...] = ()
        if unknown_words:
            indices = self._indices
            unknown = tuple(number for number, word in enumerate(words) if word not in indices)
        labels: list[LabelExplanation] = []
        if rows is None:
            rows = self._network.rows(bag)
        for index, (parts, bias, logit) in zip(classes, self._network.contributions(rows, classes), strict=True):
            if unknown and self._default is None:
                parts = _with_zeros(parts, unknown)  # noqa: PLW2901 - the same parts
            labels.append(LabelExplanation(self.labels[index], logit, bias, tuple(parts)))
        return Explanation(tokens, unknown, tuple(labels), self.confidence.temperature)

    def _classes_to_explain(self, winner: int, labels: Sequence[str], exponentials: npt.NDArray[Any]) -> Sequence[int]:
        """Return the best class, then the classes of the requested labels, each label once.

        If several outputs share a label, the largest output is explained.

        Raises:
            InvalidRequest: the model has no such label.
        """
        if not labels:
            return (winner,)
        classes = {self.labels[winner]: winner}
        # The last of equal keys wins, so the largest output must come last.
        largest = {self.labels[index]: index for index in exponentials.argsort(kind="stable").tolist()}
        for label in labels:
            if label not in largest:
                raise InvalidRequest("the model has no such label to explain; request labels of its manifest")
            classes.setdefault(label, largest[label])
        return [*classes.values()]


def _bytes_of_texts(texts: Iterable[str]) -> int:
    return sum(map(sys.getsizeof, texts))


def _not_a_number() -> NonFiniteLogits:
    return NonFiniteLogits("the model's answer is not a number; train the model again")


def _with_zeros(parts: list[float], left_out: Sequence[int]) -> list[float]:
    """Return the parts of all tokens, with 0 for the tokens that were left out."""
    for number in left_out:
        parts.insert(number, 0.0)
    return parts


def choose_tokenizer(manifest: Manifest, vocabulary: Vocabulary) -> Tokenizer:
    """Return the tokenizer that the manifest names, else the tokenizer that the vocabulary was built with.

    Raises:
        InvalidManifest: the manifest names an unknown tokenizer.
    """
    if manifest.tokenizer is None:
        return Tokenizer(tokenizer_of(vocabulary))
    try:
        return Tokenizer.parse(manifest.tokenizer)
    except ValueError as error:
        raise InvalidManifest(f"manifest.json: Tokenizer must be omitted or one of {GRAMMAR}") from error


def tokenizer_of(vocabulary: Vocabulary) -> TokenizerName:
    """Return the tokenizer that a vocabulary was built with.

    A vocabulary in which every token except special ones is one character is a character vocabulary: the book's
    training code joined the characters of each text with spaces. A vocabulary with white space or capitals cannot have
    come from ``basic_english``, so its documents are split into characters without any change.
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
            f"vocab.pth has {len(vocabulary)} tokens, but model.pth has {rows} rows; publish the files of "
            "one training together"
        )
    default = vocabulary.default_index
    wrong_default = default is not None and default != NO_INDEX and not 0 <= default < rows
    if vocabulary.lowest < 0 or vocabulary.highest >= rows or wrong_default:
        raise InvalidModelFile(f"vocab.pth has an index that is not one of the {rows} rows of model.pth")
