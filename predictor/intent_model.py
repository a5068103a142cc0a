"""A loaded intent model: immutable, and safe to use from several threads."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from predictor.files.tensors import Array
from predictor.folded_network import FoldedNetwork
from predictor.softmax import softmax, softmax_of_one
from predictor.tokenizer import TokenizerName, tokenizer
from predictor.vocabulary import Vocabulary
from serving.errors import InvalidManifest, InvalidModelFile, NonFiniteLogits
from serving.manifest import Manifest
from serving.model_id import ModelId
from serving.prediction import Outcome, Prediction, Query, ScoredLabel

_SPECIAL_TOKEN: Final = re.compile(r"<\w+>|\[[A-Z]+\]")

NO_INDEX: Final = -1
"""The default index that torchtext's own documentation sets to mean that there is none."""


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
        self.tokenizer = choose_tokenizer(manifest, vocabulary)
        self.size = network.size + vocabulary.size + sum(sys.getsizeof(label) for label in labels)
        """Bytes of memory that the model takes."""
        self._tokenize = tokenizer(self.tokenizer)
        self._vocabulary = vocabulary
        self._indices = vocabulary.indices
        self._default = vocabulary.default_index if vocabulary.default_index != NO_INDEX else None
        self._network = network

    def encode(self, document: str) -> list[int]:
        """Return the indices of the document's tokens.

        Tokens that are not in a vocabulary without a default index are left out: the mean is that of the others.
        """
        indices, default = self._indices, self._default
        found = [indices.get(token, default) for token in self._tokenize(document)]
        return [index for index in found if index is not None]

    def predict(self, queries: Sequence[Query]) -> list[Outcome]:
        """Return the answer to each query, in order, from one pass through the network."""
        logits = self.logits([query.document for query in queries]).astype(np.float64)
        # For each row on its own the calls would cost more than the network; for one row alone the fewest do.
        with nullcontext() if self._network.always_finite else np.errstate(over="ignore", invalid="ignore"):
            answers = softmax_of_one(logits[0]) if len(logits) == 1 else softmax(logits)
        if not self._network.always_finite:
            finite: Any = np.isfinite(logits).all(axis=1).tolist()
            return [
                self._prediction(query, *answer) if valid else _not_finite()
                for query, answer, valid in zip(queries, answers, finite, strict=True)
            ]
        return [self._prediction(query, *answer) for query, answer in zip(queries, answers, strict=True)]

    def logits(self, documents: Sequence[str]) -> Array:
        """Return the logits of each document: float32, shape [documents, classes]."""
        return self._network.logits([self.encode(document) for document in documents])

    def _prediction(self, query: Query, winner: int, score: float, exponentials: npt.NDArray[Any]) -> Prediction:
        best: tuple[ScoredLabel, ...] = ()
        if query.k:
            # Of equal scores the first comes first, as with the label itself.
            order = np.argsort(-exponentials, kind="stable")[: query.k]
            best = tuple(ScoredLabel(self.labels[index], float(exponentials[index]) * score) for index in order)
        return Prediction(self.labels[winner], score, best, self.model_id, self.version)


def _not_finite() -> NonFiniteLogits:
    return NonFiniteLogits("the model's answer is not a number; train it again")


def choose_tokenizer(manifest: Manifest, vocabulary: Vocabulary) -> TokenizerName:
    """Return the tokenizer that the manifest names, else the one that the vocabulary was made with.

    A vocabulary whose every token but the special ones is one character is a character vocabulary: the book's
    training code joined the characters of each text with spaces. One with white space or capitals in it cannot have
    come from ``basic_english`` at all, so its documents are taken character by character as they stand.

    Raises:
        InvalidManifest: the manifest names a tokenizer that is not known.
    """
    if manifest.tokenizer is not None:
        try:
            return TokenizerName(manifest.tokenizer)
        except ValueError as error:
            known = ", ".join(TokenizerName)
            raise InvalidManifest(f"manifest.json: Tokenizer must be one of {known}, or left out") from error
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
