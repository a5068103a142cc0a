"""Models of few texts: calibrated by cross-validation, and not confident of what they do not know."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from predictor.model.intent_model import IntentModel
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query
from training.calibration import lowest_threshold
from training.data import DataSet, Example
from training.model import TrainedModel, measure, planned_epochs, train_model
from training.notes import notes_on
from training.recipe import Recipe
from training.trainer import Epoch

RECIPE = Recipe(dimensions=16, epochs=20)
LABELS = {
    "hours": ("when do you {}", ["open", "close", "start", "end"], ["today", "on sunday", "tomorrow"]),
    "price": ("what does {} cost", ["it", "a room", "the ticket", "shipping"], ["now", "please", "in euros"]),
    "refund": ("i want {} back", ["my money", "my deposit", "the fee", "a payment"], ["now", "please", "today"]),
    # Short texts of rare words: what the unknown token would take to mean this label.
    "maybe": ("{}", ["perhaps", "possibly", "dunno", "whatever"], ["eh", "hm", "so"]),
}


def texts_of(label: str) -> list[Example]:
    form, objects, ends = LABELS[label]
    return [Example(f"{form.format(thing)} {end}", label) for thing in objects for end in ends]


FEW = DataSet(tuple(row for label in LABELS for row in texts_of(label)), (), (), ())


def ignore(_: Epoch) -> None:
    """Ignore the epoch."""


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return train_model(FEW, RECIPE, 0, ignore)


def answers_of(model: IntentModel, texts: list[str]) -> list[Prediction]:
    found = model.predict([Query(ModelId("few"), text) for text in texts])
    return [answer for answer in found if isinstance(answer, Prediction)]


def test_the_accuracy_is_that_of_texts_that_were_held_out(trained: TrainedModel) -> None:
    shuffled = [row.label for row in FEW.train]
    Random(3).shuffle(shuffled)
    senseless = replace(
        FEW, train=tuple(replace(row, label=label) for row, label in zip(FEW.train, shuffled, strict=True))
    )
    model = train_model(senseless, RECIPE, 0, ignore)
    of_trained_texts = measure(model.served, senseless.train).in_scope_without_threshold
    assert of_trained_texts is not None
    assert of_trained_texts > model.validation_accuracy + 0.2
    assert model.validation_accuracy < 0.5 < trained.validation_accuracy


def test_all_texts_are_trained_on_and_all_networks_count_as_epochs(trained: TrainedModel) -> None:
    seen: list[Epoch] = []
    model = train_model(FEW, RECIPE, 0, seen.append)
    numbers = [epoch.number for epoch in seen]
    assert numbers == list(range(1, planned_epochs(FEW, RECIPE) + 1)) == list(range(1, 6 * RECIPE.epochs + 1))
    # The sixth network is trained on all texts.
    assert [(epoch.fold, epoch.folds) for epoch in seen[:: RECIPE.epochs]] == [(fold, 5) for fold in range(1, 7)]
    words = {word for row in FEW.train for word in row.text.split()}
    assert words <= set(model.vocabulary.tokens)
    assert (model.confidence, model.baseline) == (trained.confidence, trained.baseline)


def test_texts_of_unknown_tokens_fall_back(trained: TrainedModel) -> None:
    for answer in answers_of(trained.served, ["\u0436\u0436\u0436", "\u0436\u0449 \u044f\u044f\u044f", ""]):
        assert (answer.label, answer.fallback is not None) == ("oos", True)


def test_with_texts_out_of_scope_the_unknown_token_keeps_what_it_has_learnt() -> None:
    rows = tuple(replace(row, label="oos") if row.label == "maybe" else row for row in FEW.train)
    model = train_model(replace(FEW, train=rows), RECIPE, 0, ignore)
    (answer,) = answers_of(model.served, ["\u0436\u0436\u0436"])
    assert answer.label == "oos"


def test_the_threshold_is_well_above_chance(trained: TrainedModel) -> None:
    assert trained.confidence.threshold >= lowest_threshold(len(LABELS)) > 1 / len(LABELS)


@pytest.mark.parametrize("labels", [2, 3, 8, 150])
def test_the_lowest_threshold_is_between_chance_and_certainty(labels: int) -> None:
    assert 1.05 / labels < lowest_threshold(labels) < 0.56


def test_a_threshold_and_a_fallback_label_that_are_given_are_taken() -> None:
    model = train_model(FEW, replace(RECIPE, threshold=0.9, fallback_label="maybe"), 0, ignore)
    assert (model.confidence.threshold, model.confidence.fallback) == (0.9, "maybe")
    figures = measure(model.served, FEW.train)
    assert figures.out_of_scope_recall is not None
    assert not any("no text is labelled" in note for note in notes_on(model, FEW))


def test_the_baseline_counts_every_text_once_by_a_network_that_was_not_shown_it(trained: TrainedModel) -> None:
    assert trained.baseline.documents == len(FEW.train)
    assert trained.baseline.tokens == sum(len(row.text.split()) for row in FEW.train)
    lone = Example("an unheard word", "hours")
    model = train_model(replace(FEW, train=(*FEW.train, lone)), RECIPE, 0, ignore)
    assert model.baseline.unknown_tokens >= trained.baseline.unknown_tokens + 2


def test_the_example_is_answered_rightly(trained: TrainedModel) -> None:
    assert trained.example is not None
    (answer,) = answers_of(trained.served, [trained.example.document])
    assert (answer.label, answer.fallback) == (trained.example.label, None)


def test_texts_with_two_labels_are_counted_and_one_is_shown(trained: TrainedModel) -> None:
    def conflicts(*rows: tuple[str, str]) -> list[str]:
        data = replace(FEW, train=(*FEW.train, *(Example(text, label) for text, label in rows)))
        return [note for note in notes_on(trained, data) if "more than one label" in note]

    assert conflicts(("pay bill", "hours"), ("pay bill", "hours")) == []
    (one,) = conflicts(("pay bill", "hours"), ("Pay  bill", "maybe"), ("pay bill", "hours"))
    assert "1 text has more than one label ('pay bill': 'hours' 2 times, 'maybe')" in one
    (two,) = conflicts(("pay bill", "hours"), ("pay bill", "maybe"), ("a", "hours"), ("a", "maybe"), ("a", "maybe"))
    assert "2 texts have more than one label ('a': 'hours', 'maybe' 2 times)" in two


def test_what_could_not_be_known_is_told(trained: TrainedModel) -> None:
    told = " ".join(notes_on(trained, FEW))
    assert "too few texts to keep some for validation" in told
    assert "no text is labelled 'oos'" in told
    assert "--threshold" in told
    assert "--fallback-label" in told
    assert "--test" in told
    assert "fewer than 10 texts" not in told
    fewer = replace(FEW, train=FEW.train[:-4], validation=FEW.train, test=FEW.train)
    told = " ".join(notes_on(trained, fewer))
    assert "1 of 4 labels have fewer than 10 texts ('maybe' has 8)" in told
    assert "validation texts, which is few" in told
    assert "--test" not in told
