"""Trains a model on a data set, and computes its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from training.calibration import choose_threshold, fit_temperature
from training.data import OUT_OF_SCOPE, DataSet, Example, labels_of
from training.errors import BadData
from training.example import chosen_example
from training.recipe import Recipe
from training.trainer import Bags, OnEpoch, Trained, fit
from training.vocabulary import build_vocabulary, with_ngrams

ALGORITHM: Final = "intent-classification"

_DECIMALS: Final = 6
# Bytes of a token in vocab.pth besides its text: opcode, length and memo entry.
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
    """Counts of the model's answers to the validation texts."""
    example: ModelExample | None
    """Validation text that the model answers correctly; ``None`` if none qualifies."""
    epochs: int
    """Number of epochs that were run."""
    best_epoch: int
    """Epoch that the weights come from, counted from 1."""
    validation_accuracy: float
    """Accuracy on all validation texts, by the label with the highest score."""
    served: IntentModel
    """The same model in the form that a predictor serves."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of a model on texts, as shares from 0 to 1; ``None`` if there are no such texts."""

    in_scope: float | None
    """Share of the texts in scope that get their label, although the threshold takes some of them for out of scope."""
    in_scope_without_threshold: float | None
    out_of_scope_recall: float | None
    """Share of the texts out of scope that get the fallback label, by the threshold or as a separate class."""
    overall: float | None
    """Share of all texts that get their label."""
    calibration_error: float | None
    """Expected calibration error on the texts in scope."""


def train_model(data: DataSet, recipe: Recipe, seed: int, on_epoch: OnEpoch) -> TrainedModel:
    """Return a model trained on the training rows, stopped and calibrated by the validation rows.

    The test rows are not used: the training itself receives only training and validation rows.

    Raises:
        BadData: a classifier cannot be trained on the rows.
    """
    data.check()
    return _train(data.train, data.validation, recipe, seed=seed, on_epoch=on_epoch)


def measure(model: IntentModel, rows: Sequence[Example]) -> Figures:
    """Return the figures of ``model`` on test rows. No choice may depend on these figures."""
    answers = [Answer.of(prediction) for prediction in _predictions(model, [row.text for row in rows])]
    inside = [(row, answer) for row, answer in zip(rows, answers, strict=True) if row.label != OUT_OF_SCOPE]
    in_scope = [row.label for row, _ in inside]
    best = [(answer.best, answer.score) for _, answer in inside]
    gold, given = [row.label for row in rows], [answer.label for answer in answers]
    return Figures(
        in_scope=accuracy(in_scope, [answer.label for _, answer in inside]) if inside else None,
        in_scope_without_threshold=accuracy(in_scope, [label for label, _ in best]) if inside else None,
        out_of_scope_recall=out_of_scope_recall(gold, given, {OUT_OF_SCOPE}),
        overall=accuracy(gold, given) if rows else None,
        calibration_error=expected_calibration_error(
            [score for _, score in best], [label == right for (label, _), right in zip(best, in_scope, strict=True)]
        )
        if inside
        else None,
    )


def _train(
    training: Sequence[Example], validation: Sequence[Example], recipe: Recipe, *, seed: int, on_epoch: OnEpoch
) -> TrainedModel:
    labels = labels_of(training)
    tokenizer = Tokenizer.parse(recipe.tokenizer)
    vocabulary, first_ngram = _vocabulary(training, tokenizer, recipe, len(labels))
    widths = [recipe.dimensions, *([recipe.fc_size] if recipe.fc_size else []), len(labels)]
    trained = fit(
        IntentNetwork.of_sizes(len(vocabulary), widths),
        _bags(training, tokenizer, vocabulary, labels),
        _bags(validation, tokenizer, vocabulary, labels),
        recipe,
        first_ngram=first_ngram,
        seed=seed,
        on_epoch=on_epoch,
    )
    uncalibrated = _served(trained, vocabulary, labels, tokenizer, Confidence())
    confidence = _calibrated(uncalibrated, validation, recipe)
    served = _served(trained, vocabulary, labels, tokenizer, confidence)
    counter = TrafficCounter(labels)
    answers = _predictions(served, [row.text for row in validation], counter)
    best = trained.best
    return TrainedModel(
        trained.network,
        vocabulary,
        labels,
        confidence,
        counter.snapshot(),
        chosen_example(validation, answers),
        trained.epochs,
        best.number,
        best.validation.accuracy,
        served,
    )


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


def _served(
    trained: Trained, vocabulary: Vocabulary, labels: Sequence[str], tokenizer: Tokenizer, confidence: Confidence
) -> IntentModel:
    manifest = Manifest(
        Algorithm=ALGORITHM,
        Tokenizer=str(tokenizer),
        Confidence=confidence,
        classes={str(index): label for index, label in enumerate(labels)},
    )
    weights = {name: tensor.numpy() for name, tensor in trained.network.state_dict().items()}
    return IntentModel(ModelId("trained"), manifest, vocabulary, FoldedNetwork.from_arrays(weights))


def _calibrated(model: IntentModel, validation: Sequence[Example], recipe: Recipe) -> Confidence:
    """Return the temperature and the threshold from the validation texts, without those out of scope."""
    # Few teams have texts out of scope, and teams that do have only a few.
    rows = [row for row in validation if row.label != OUT_OF_SCOPE] or validation
    classes = np.array([model.labels.index(row.label) for row in rows])
    logits = model.logits([row.text for row in rows]).astype(np.float64)
    temperature = round(fit_temperature(logits, classes), _DECIMALS)
    scaled = logits / temperature
    scores = 1.0 / np.exp(scaled - scaled.max(axis=1, keepdims=True)).sum(axis=1)
    threshold = choose_threshold(scores, logits.argmax(axis=1) == classes, recipe.given_up)
    return Confidence(temperature=temperature, threshold=round(threshold, _DECIMALS), fallback=OUT_OF_SCOPE)


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
