"""Trains a model on a data set, and computes its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from evaluation.answers import Answer
from evaluation.metrics import accuracy, expected_calibration_error, out_of_scope_recall
from predictor.model.folded_network import FoldedNetwork
from predictor.model.intent_model import IntentModel
from predictor.model.network import IntentNetwork
from predictor.model.ngram_index import NgramIndex
from predictor.model.tokenizer import Tokenizer
from predictor.model.traffic_counter import TrafficCounter
from predictor.model.vocabulary import Vocabulary
from serving.domain.answer_counts import AnswerCounts
from serving.domain.confidence import Confidence
from serving.domain.manifest import Manifest, ModelExample
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query
from training.calibration import Numbers, choose_threshold, fit_temperature, lowest_threshold
from training.cross_validation import PARTS, parts_of
from training.data import DataSet, Example
from training.errors import BadData
from training.example import chosen_example
from training.recipe import Recipe
from training.trainer import Bags, Epoch, OnEpoch, Trained, fit
from training.unknown_token import neutralize
from training.vocabulary import build_vocabulary, with_ngrams

ALGORITHM: Final = "intent-classification"

_DECIMALS: Final = 6
# Bytes of a token in vocab.pth in addition to its text: opcode, length and memo entry.
_BYTES_OF_TOKEN: Final = 10
_BYTES_OF_NUMBER: Final = 4
# Bytes of the manifest and of the other two files' overhead; and of a label, which the manifest holds twice.
_BYTES_AROUND: Final = 12_000
_BYTES_OF_LABEL: Final = 100


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """Content of a model folder."""

    network: IntentNetwork
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    """Labels in the order of the outputs."""
    confidence: Confidence
    baseline: AnswerCounts
    """Counts of answers to the validation texts; by cross-validation, of answers to texts that were held out."""
    example: ModelExample | None
    """Text that the model answers correctly, a validation text if there are any; ``None`` if none qualifies."""
    epochs: int
    """Number of epochs that were run."""
    best_epoch: int
    """Epoch that the weights come from, counted from 1."""
    validation_accuracy: float
    """Accuracy on all validation texts, or on all that were held out, by the label with the highest score."""
    served: IntentModel
    """The same model in the form that a predictor serves."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of a model on texts, as shares from 0 to 1; ``None`` if there are no such texts."""

    in_scope: float | None
    """Share of the texts in scope that get their label with the threshold, below which texts count as out of scope."""
    in_scope_without_threshold: float | None
    out_of_scope_recall: float | None
    """Share of the texts out of scope that get the fallback label, by the threshold or as a separate class."""
    overall: float | None
    """Share of all texts that get their label."""
    calibration_error: float | None
    """Expected calibration error on the texts in scope."""


def train_model(data: DataSet, recipe: Recipe, seed: int, on_epoch: OnEpoch) -> TrainedModel:
    """Return a model trained on the training rows, and calibrated.

    The validation rows stop the training and calibrate the scores. If there are none, the model is trained on all
    rows, and :mod:`training.cross_validation` calibrates it. The test rows are not used.

    Raises:
        BadData: a classifier cannot be trained on the rows.
    """
    data.check()
    return (_with_validation if data.validation else _cross_validated)(data, recipe, seed, on_epoch)


def measure(model: IntentModel, rows: Sequence[Example]) -> Figures:
    """Return the figures of ``model`` on test rows. No choice may depend on these figures."""
    answers = [Answer.of(prediction) for prediction in _predictions(model, [row.text for row in rows])]
    fallback = model.confidence.fallback
    inside = [(row, answer) for row, answer in zip(rows, answers, strict=True) if row.label != fallback]
    in_scope = [row.label for row, _ in inside]
    best = [(answer.best, answer.score) for _, answer in inside]
    gold, given = [row.label for row in rows], [answer.label for answer in answers]
    return Figures(
        in_scope=accuracy(in_scope, [answer.label for _, answer in inside]) if inside else None,
        in_scope_without_threshold=accuracy(in_scope, [label for label, _ in best]) if inside else None,
        out_of_scope_recall=out_of_scope_recall(gold, given, {fallback}),
        overall=accuracy(gold, given) if rows else None,
        calibration_error=expected_calibration_error(
            [score for _, score in best], [label == right for (label, _), right in zip(best, in_scope, strict=True)]
        )
        if inside
        else None,
    )


def planned_epochs(data: DataSet, recipe: Recipe) -> int:
    """Return the maximum number of epochs of :func:`train_model`, over all networks that it trains."""
    return recipe.epochs * (1 if data.validation else 1 + PARTS)


def _with_validation(data: DataSet, recipe: Recipe, seed: int, on_epoch: OnEpoch) -> TrainedModel:
    fitted = _fitted(data.train, data.validation, data.labels, recipe, seed=seed, on_epoch=on_epoch)
    confidence = _calibrated(fitted.logits(data.validation), data.validation, fitted.labels, recipe, recipe.given_up)
    served = fitted.served(confidence)
    counter = TrafficCounter(fitted.labels)
    answers = _predictions(served, [row.text for row in data.validation], counter)
    example = chosen_example(data.validation, answers, recipe.fallback_label)
    score = fitted.trained.best.validation
    return fitted.model(served, counter, example, 0.0 if score is None else score.accuracy)


def _cross_validated(data: DataSet, recipe: Recipe, seed: int, on_epoch: OnEpoch) -> TrainedModel:
    """Return a model trained on all rows, and calibrated by the scores of rows that other networks were not shown."""
    labels = data.labels
    done = 0
    parts: list[tuple[_Fitted, list[Example]]] = []

    def told(epoch: Epoch) -> None:
        on_epoch(replace(epoch, number=done + epoch.number, fold=len(parts) + 1, folds=PARTS))

    for part in parts_of(data.train, seed):
        held_out = set(part)
        rest = [row for index, row in enumerate(data.train) if index not in held_out]
        fitted = _fitted_to_all(rest, labels, recipe, seed=seed, on_epoch=told)
        parts.append((fitted, [data.train[index] for index in part]))
        done += fitted.trained.epochs
    rows = [row for _, held_out_rows in parts for row in held_out_rows]
    logits = np.concatenate([fitted.logits(held_out_rows) for fitted, held_out_rows in parts])
    confidence = _calibrated(logits, rows, labels, recipe, recipe.given_up_of_few)
    counter = TrafficCounter(labels)
    for fitted, held_out_rows in parts:
        _predictions(fitted.served(confidence), [row.text for row in held_out_rows], counter)
    fitted = _fitted_to_all(data.train, labels, recipe, seed=seed, on_epoch=told)
    served = fitted.served(confidence)
    answers = _predictions(served, [row.text for row in data.train])
    example = chosen_example(data.train, answers, recipe.fallback_label)
    right = logits.argmax(axis=1) == [labels.index(row.label) for row in rows]
    return fitted.model(served, counter, example, float(right.mean()))


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """A trained network and its tokens."""

    trained: Trained
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    tokenizer: Tokenizer

    def served(self, confidence: Confidence) -> IntentModel:
        """Return the model in the form that a predictor serves."""
        manifest = Manifest(
            Algorithm=ALGORITHM,
            Tokenizer=str(self.tokenizer),
            Confidence=confidence,
            classes={str(index): label for index, label in enumerate(self.labels)},
        )
        weights = {name: tensor.numpy() for name, tensor in self.trained.network.state_dict().items()}
        return IntentModel(ModelId("trained"), manifest, self.vocabulary, FoldedNetwork.from_arrays(weights))

    def logits(self, rows: Sequence[Example]) -> Numbers:
        """Return the logits of the texts, shape [rows, labels]."""
        return self.served(Confidence()).logits([row.text for row in rows]).astype(np.float64)

    def model(
        self, served: IntentModel, counter: TrafficCounter, example: ModelExample | None, accuracy: float
    ) -> TrainedModel:
        """Return the content of the model's folder."""
        return TrainedModel(
            self.trained.network,
            self.vocabulary,
            self.labels,
            served.confidence,
            counter.snapshot(),
            example,
            self.trained.epochs,
            self.trained.best.number,
            accuracy,
            served,
        )


def _fitted_to_all(
    rows: Sequence[Example], labels: tuple[str, ...], recipe: Recipe, *, seed: int, on_epoch: OnEpoch
) -> _Fitted:
    """Return a network that is trained on all ``rows``, of which there are few."""
    fitted = _fitted(rows, (), labels, recipe, seed=seed, on_epoch=on_epoch)
    unknown = fitted.vocabulary.default_index
    if unknown is not None and recipe.fallback_label not in labels:
        # A label whose texts are short and consist of rare words would attract unknown words, and with them all
        # nonsense.
        neutralize(fitted.trained.network, unknown)
    return fitted


def _fitted(
    training: Sequence[Example],
    validation: Sequence[Example],
    labels: tuple[str, ...],
    recipe: Recipe,
    *,
    seed: int,
    on_epoch: OnEpoch,
) -> _Fitted:
    tokenizer = Tokenizer.parse(recipe.tokenizer)
    vocabulary, first_ngram = _vocabulary(training, tokenizer, recipe, len(labels))
    widths = [recipe.dimensions, *([recipe.fc_size] if recipe.fc_size else []), len(labels)]
    trained = fit(
        IntentNetwork.of_sizes(len(vocabulary), widths),
        _bags(training, tokenizer, vocabulary, labels),
        _bags(validation, tokenizer, vocabulary, labels) if validation else None,
        recipe,
        first_ngram=first_ngram,
        seed=seed,
        on_epoch=on_epoch,
    )
    return _Fitted(trained, vocabulary, labels, tokenizer)


def _vocabulary(rows: Sequence[Example], tokenizer: Tokenizer, recipe: Recipe, labels: int) -> tuple[Vocabulary, int]:
    """Return the vocabulary, and the index at which its n-grams begin."""
    documents = [tokenizer.tokens(row.text) for row in rows]
    words = build_vocabulary(documents, recipe.minimum_frequency)
    layers = recipe.fc_size * (recipe.dimensions + labels + 1) if recipe.fc_size else recipe.dimensions * labels
    vocabulary = with_ngrams(
        words,
        map(tokenizer.ngrams, documents),
        minimum_frequency=recipe.minimum_frequency,
        row_bytes=_BYTES_OF_TOKEN + _BYTES_OF_NUMBER * recipe.dimensions,
        most_bytes=recipe.max_bytes - _BYTES_AROUND - _BYTES_OF_LABEL * labels - _BYTES_OF_NUMBER * (layers + labels),
    )
    if len(vocabulary) < 2:
        raise BadData(f"{recipe.max_bytes} bytes are too few for a model of {labels} labels; allow more")
    return vocabulary, min(len(words), len(vocabulary))


def _calibrated(
    logits: Numbers, rows: Sequence[Example], labels: Sequence[str], recipe: Recipe, given_up: float
) -> Confidence:
    """Return the temperature and the threshold.

    Args:
        logits: logits of rows that the networks were not trained on; shape [rows, labels].
        rows: these rows. Those that are out of scope are not used, unless there are no others.
        labels: labels of the model.
        recipe: the threshold and the fallback label, if they are given.
        given_up: share of the rows whose right answers the fallback label may replace.
    """
    # Few teams have texts out of scope, and teams that do have only a few.
    in_scope = np.array([row.label != recipe.fallback_label for row in rows])
    if in_scope.any():
        logits, rows = logits[in_scope], [row for row in rows if row.label != recipe.fallback_label]
    classes = np.array([labels.index(row.label) for row in rows])
    temperature = round(fit_temperature(logits, classes), _DECIMALS)
    threshold = recipe.threshold
    if threshold is None:
        scaled = logits / temperature
        scores = 1.0 / np.exp(scaled - scaled.max(axis=1, keepdims=True)).sum(axis=1)
        # With few texts, no less than the lowest score of a right answer, which gives up none of them.
        share = max(given_up, 1 / len(rows)) if given_up else 0.0
        chosen = choose_threshold(scores, logits.argmax(axis=1) == classes, share)
        threshold = round(max(chosen, lowest_threshold(len(labels))), _DECIMALS)
    return Confidence(temperature=temperature, threshold=threshold, fallback=recipe.fallback_label)


def _predictions(model: IntentModel, texts: Sequence[str], counter: TrafficCounter | None = None) -> list[Prediction]:
    outcomes = model.predict([Query(model.model_id, text) for text in texts], counter)
    return [outcome for outcome in outcomes if isinstance(outcome, Prediction)]


def _bags(rows: Sequence[Example], tokenizer: Tokenizer, vocabulary: Vocabulary, labels: Sequence[str]) -> Bags:
    classes = {label: index for index, label in enumerate(labels)}
    ngrams = NgramIndex(tokenizer, vocabulary)
    return Bags(
        documents=tuple(_bag(tokenizer, vocabulary, ngrams, row.text) for row in rows),
        classes=torch.tensor([classes[row.label] for row in rows], dtype=torch.int64),
    )


def _bag(tokenizer: Tokenizer, vocabulary: Vocabulary, ngrams: NgramIndex, text: str) -> torch.Tensor:
    """Return the indices of a text's tokens, as in :meth:`~predictor.model.intent_model.IntentModel.encode`."""
    tokens = tokenizer.tokens(text)
    words = [index for token in tokens if (index := vocabulary.lookup(token)) is not None]
    return torch.tensor(ngrams.extended(words, tokens), dtype=torch.int64)
