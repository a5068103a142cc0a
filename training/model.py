"""From a data set to a trained model and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from predictor.network import IntentNetwork
from predictor.tokenizer import TokenizerName, tokenizer
from predictor.vocabulary import Vocabulary
from training.data import OUT_OF_SCOPE, DataSet, Example
from training.recipe import Recipe
from training.trainer import Bags, OnEpoch, evaluate, fit
from training.vocabulary import build_vocabulary

TOKENIZER: Final = TokenizerName.BASIC_ENGLISH

_tokens_of = tokenizer(TOKENIZER)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """What goes into a model folder."""

    network: IntentNetwork
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    """In the order of the outputs."""
    epochs: int
    """How many there were."""
    best_epoch: int
    """The one whose weights these are, counted from 1."""
    validation_accuracy: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of test rows that get their label, 0 to 1; ``None`` where there are no such rows."""

    in_scope: float | None
    overall: float | None
    """Out-of-scope rows included. ``None`` too where the model has no such class."""


def train_model(data: DataSet, recipe: Recipe, seed: int, on_epoch: OnEpoch) -> TrainedModel:
    """Return a model of the training rows, stopped by the validation rows; the test rows are not looked at.

    Raises:
        BadData: the rows do not make a classifier.
    """
    data.check()
    labels = data.labels
    vocabulary = build_vocabulary((_tokens_of(row.text) for row in data.train), recipe.minimum_frequency)
    trained = fit(
        IntentNetwork.of_sizes(len(vocabulary), [recipe.dimensions, recipe.fc_size, len(labels)]),
        _bags(data.train, vocabulary, labels),
        _bags(data.validation, vocabulary, labels),
        recipe,
        seed=seed,
        on_epoch=on_epoch,
    )
    best = trained.best
    return TrainedModel(trained.network, vocabulary, labels, trained.epochs, best.number, best.validation.accuracy)


def measure(model: TrainedModel, test: Sequence[Example]) -> Accuracy:
    """Return how many of the test rows ``model`` gets right. Nothing may be chosen by this."""
    in_scope = [row for row in test if row.label != OUT_OF_SCOPE]
    return Accuracy(
        in_scope=_share_right(model, in_scope),
        overall=_share_right(model, test) if OUT_OF_SCOPE in model.labels else None,
    )


def _share_right(model: TrainedModel, rows: Sequence[Example]) -> float | None:
    return evaluate(model.network, _bags(rows, model.vocabulary, model.labels)).accuracy if rows else None


def _bags(rows: Sequence[Example], vocabulary: Vocabulary, labels: Sequence[str]) -> Bags:
    classes = {label: index for index, label in enumerate(labels)}
    documents = [[vocabulary.lookup(token) for token in _tokens_of(row.text)] for row in rows]
    return Bags(
        documents=tuple(torch.tensor(document, dtype=torch.int64) for document in documents),
        classes=torch.tensor([classes[row.label] for row in rows], dtype=torch.int64),
    )
