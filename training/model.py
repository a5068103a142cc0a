"""From a data set to a trained model and its figures."""

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
# Beside a token's text: its opcode, length and memo in vocab.pth.
_BYTES_OF_TOKEN: Final = 10
_BYTES_OF_NUMBER: Final = 4
# Manifest, and what the two other files have around their numbers and tokens; and a label in the manifest, twice.
_BYTES_AROUND: Final = 12_000
_BYTES_OF_LABEL: Final = 100


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """What goes into a model folder."""

    network: IntentNetwork
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    """In the order of the outputs."""
    confidence: Confidence
    baseline: AnswerCounts
    """What the model answers to the validation texts."""
    example: ModelExample | None
    """One of them, which it answers rightly."""
    epochs: int
    """How many there were."""
    best_epoch: int
    """The one whose weights these are, counted from 1."""
    validation_accuracy: float
    """Of all validation texts, by the label with the highest score."""
    served: IntentModel
    """The same as a predictor serves it."""


@dataclass(frozen=True, slots=True)
class Figures:
    """How well a model does on texts, as shares from 0 to 1; ``None`` where there are no such texts."""

    in_scope: float | None
    """Of those in scope, how many get their label, though the threshold takes some of them for out of scope."""
    in_scope_without_threshold: float | None
    out_of_scope_recall: float | None
    """Of those out of scope, how many get the fallback label, by the threshold or as a class of its own."""
    overall: float | None
    """Of all, how many get their label."""
    calibration_error: float | None
    """Expected calibration error of those in scope."""


def train_model(data: DataSet, recipe: Recipe, seed: int, on_epoch: OnEpoch) -> TrainedModel:
    """Return a model of the training rows, stopped and calibrated by the validation rows.

    The test rows are not looked at: nothing below this function is given them.

    Raises:
        BadData: the rows do not make a classifier.
    """
    data.check()
    return _train(data.train, data.validation, recipe, seed=seed, on_epoch=on_epoch)


def measure(model: IntentModel, rows: Sequence[Example]) -> Figures:
    """Return how well ``model`` does on test rows. Nothing may be chosen by this."""
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
    """Return the vocabulary, and the index from which on its tokens are n-grams."""
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
        raise BadData(f"{recipe.max_bytes} bytes hold no model of {labels} labels; allow it more")
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
    """Return temperature and threshold by the validation texts, those out of scope left aside."""
    # Few teams have texts out of scope, and those who do have few.
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
    """Return the indices of a text's tokens, as :meth:`~predictor.model.intent_model.IntentModel.encode` has them."""
    tokens = tokenizer.tokens(text)
    words = [index for token in tokens if (index := vocabulary.lookup(token)) is not None]
    return torch.tensor(ngrams.extended(words, tokens), dtype=torch.int64)
