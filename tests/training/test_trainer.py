from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predictor.model.network import IntentNetwork
from predictor.model.ngram_index import NgramIndex
from predictor.model.normalization import normalized
from predictor.model.tokenizer import Tokenizer
from training import model as model_module
from training import trainer
from training.data import DataSet, Example
from training.errors import BadData
from training.model import TrainedModel, measure, train_model
from training.recipe import Recipe
from training.trainer import Bags, Epoch, Score, evaluate, fit

RECIPE = Recipe(dimensions=8, fc_size=8, epochs=4, learning_rate=0.05)


def ignore(_: Epoch) -> None:
    """Ignore the epoch."""


def bags(*documents: list[int]) -> Bags:
    """Return documents with the first token of each as its class."""
    return Bags(
        tuple(torch.tensor(document, dtype=torch.int64) for document in documents),
        torch.tensor([document[0] for document in documents]),
    )


def weights_of(data: DataSet, seed: int) -> list[torch.Tensor]:
    return list(train_model(data, RECIPE, seed, ignore).network.state_dict().values())


def test_a_tiny_data_set_is_learnt(tiny: DataSet) -> None:
    model = train_model(tiny, replace(RECIPE, epochs=30), 0, ignore)
    assert model.labels == ("music", "oos", "weather")
    assert model.validation_accuracy > 0.9
    accuracy = measure(model.served, tiny.test)
    assert accuracy.in_scope is not None
    assert accuracy.in_scope > 0.9
    assert accuracy.overall is not None


def test_what_was_not_tested_has_no_accuracy(tiny: DataSet) -> None:
    model = train_model(tiny.without("oos"), RECIPE, 0, ignore)
    assert measure(model.served, ()).in_scope is None
    assert measure(model.served, tiny.without("oos").test).out_of_scope_recall is None


def test_the_same_seed_gives_the_same_weights_whatever_torch_is_set_to(tiny: DataSet) -> None:
    first = weights_of(tiny, seed=3)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    torch.manual_seed(99)
    try:
        second = weights_of(tiny, seed=3)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_another_seed_gives_other_weights(tiny: DataSet) -> None:
    assert not torch.equal(weights_of(tiny, seed=3)[0], weights_of(tiny, seed=4)[0])


def test_training_leaves_the_settings_of_torch_as_they_were(tiny: DataSet) -> None:
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    train_model(tiny, RECIPE, 0, ignore)
    assert (torch.get_num_threads(), torch.get_deterministic_debug_mode()) == before


def test_the_test_split_has_no_say(tiny: DataSet) -> None:
    misleading = tuple(replace(row, label="music") for row in tiny.test)
    whole, changed, without = (
        train_model(replace(tiny, test=rows), RECIPE, 0, ignore) for rows in (tiny.test, misleading, ())
    )
    for other in (changed, without):
        pairs = zip(whole.network.state_dict().values(), other.network.state_dict().values(), strict=True)
        assert all(torch.equal(one, same) for one, same in pairs)
        assert (whole.vocabulary, whole.confidence, whole.baseline) == (
            other.vocabulary,
            other.confidence,
            other.baseline,
        )
        assert (whole.epochs, whole.best_epoch) == (other.epochs, other.best_epoch)


def test_training_stops_when_patience_ends_and_gives_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    scores: Iterator[Score] = iter(Score(0.5, loss) for loss in (0.9, 0.5, 0.6, 0.5, 0.7, 0.1))
    seen: list[torch.Tensor] = []

    def scripted(network: IntentNetwork, _: Bags) -> Score:
        seen.append(network.embedding.weight.detach().clone())
        return next(scores)

    monkeypatch.setattr(trainer, "evaluate", scripted)
    epochs: list[Epoch] = []
    texts = bags([0, 2], [1, 3])
    network = IntentNetwork.of_sizes(4, [8, 8, 2])
    trained = fit(
        network, texts, texts, replace(RECIPE, epochs=10, patience=3), first_ngram=99, seed=0, on_epoch=epochs.append
    )
    assert (trained.epochs, trained.best.number) == (5, 2)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5]
    assert torch.equal(trained.network.embedding.weight, seen[1])


def test_the_loss_decides_which_epoch_is_best() -> None:
    assert Score(0.5, 0.1).beats(Score(0.6, 0.2))
    assert not Score(0.5, 0.2).beats(Score(0.5, 0.2))
    assert not Score(0.6, 9.0).beats(Score(0.5, 0.2))


def test_a_recipe_without_epochs_is_refused() -> None:
    texts = bags([0], [1])
    with pytest.raises(ValueError, match="one epoch"):
        fit(
            IntentNetwork.of_sizes(2, [4, 4, 2]),
            texts,
            texts,
            replace(RECIPE, epochs=0),
            first_ngram=99,
            seed=0,
            on_epoch=ignore,
        )


def test_many_texts_are_evaluated_as_few_are() -> None:
    texts = bags(*([number % 3, 3] for number in range(50)))
    network = IntentNetwork.of_sizes(4, [8, 8, 3])
    torch.nn.init.normal_(network.embedding.weight)
    whole = evaluate(network, texts)
    parts = evaluate(network, texts, batch_size=7)
    assert parts.accuracy == whole.accuracy
    assert parts.loss == pytest.approx(whole.loss)


def test_a_text_without_tokens_can_be_trained_on() -> None:
    empty = Bags((torch.tensor([], dtype=torch.int64), torch.tensor([1])), torch.tensor([0, 1]))
    trained = fit(IntentNetwork.of_sizes(2, [4, 4, 2]), empty, empty, RECIPE, first_ngram=99, seed=0, on_epoch=ignore)
    assert torch.isfinite(trained.network.embedding.weight).all()


@pytest.mark.parametrize(("rows", "size"), [(1, 8), (1_600, 8), (10_000, 50), (1_000_000, 64)])
def test_small_data_sets_have_small_batches(rows: int, size: int) -> None:
    assert Recipe().batch_size(rows) == size


def test_hidden_words_are_shown_as_unknown_and_hidden_ngrams_are_left_out() -> None:
    texts = bags([0, 1, 2, 5, 6], [1, 5, 6, 7])
    hiding = trainer._TrainingPass(
        IntentNetwork.of_sizes(8, [4, 2]),
        texts,
        replace(RECIPE, token_dropout=0.5),
        first_ngram=5,
        generator=torch.Generator().manual_seed(1),
    )
    seen = set()
    for _ in range(200):
        indices, offsets, _ = texts.batch([0, 1])
        kept, begins = hiding._hiding(indices, offsets)
        first, second = kept[: begins[1]].tolist(), kept[begins[1] :].tolist()
        assert first[0] == 0
        assert all(found in (0, word) for found, word in zip(first[1:3], (1, 2), strict=True))
        assert second[0] in (0, 1)
        assert set(first[3:]) <= {5, 6}
        assert set(second[1:]) <= {5, 6, 7}
        seen.add((tuple(first), tuple(second)))
    assert len(seen) > 100


def test_the_learning_rate_falls_along_half_a_cosine() -> None:
    rates = [Recipe(learning_rate=2.0).learning_rate_at(step, 8) for step in range(9)]
    assert rates == sorted(rates, reverse=True)
    assert [rates[0], rates[4], rates[8]] == pytest.approx([2.0, 1.0, 0.0])


def test_class_weights_make_rare_labels_weigh_as_much_as_frequent_ones() -> None:
    weights = trainer._class_weights(torch.tensor([0, 0, 0, 1]))
    assert weights.tolist() == pytest.approx([2 / 3, 2.0])
    assert (weights * torch.tensor([3, 1])).tolist() == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize("change", [{"label_smoothing": 0.2}, {"class_weights": True}, {"token_dropout": 0.6}])
def test_what_the_recipe_says_of_the_loss_changes_the_weights(tiny: DataSet, change: dict[str, Any]) -> None:
    uneven = replace(tiny, train=tiny.train[:-4])
    plain, changed = (
        train_model(uneven, recipe, 0, ignore).network.embedding.weight
        for recipe in (RECIPE, replace(RECIPE, **change))
    )
    assert not torch.equal(plain, changed)


def test_the_network_that_was_trained_encodes_as_the_model_that_serves(tiny: DataSet) -> None:
    model = train_model(tiny, RECIPE, 0, ignore)
    texts = ["play the banana", "", "zzz of wind", *(row.text for row in tiny.test)]
    ngrams = NgramIndex(model.served.tokenizer, model.vocabulary)
    bags_of = [model_module._bag(model.served.tokenizer, model.vocabulary, ngrams, text).tolist() for text in texts]
    assert bags_of == [list(model.served.encode(text).bag) for text in texts]


TYPED = st.text(st.sampled_from("play of wind \u2019'\u201c\"\uff57\u200b\u00ade\u0301\u00e9.,"), max_size=40)


@pytest.fixture(scope="module")
def normalizing() -> TrainedModel:
    rows = [Example(text, label) for text, label in (("don't play", "a"), ("the caf\u00e9 of \u201cwind\u201d", "b"))]
    return train_model(DataSet(tuple(rows), tuple(rows), (), ()), replace(RECIPE, epochs=1), 0, ignore)


@given(text=TYPED)
def test_texts_as_people_type_them_are_the_same_in_training_and_in_serving(
    normalizing: TrainedModel, text: str
) -> None:
    served, vocabulary = normalizing.served, normalizing.vocabulary
    tokenizer = Tokenizer.parse(RECIPE.tokenizer)
    trained = model_module._bag(tokenizer, vocabulary, NgramIndex(tokenizer, vocabulary), text).tolist()
    assert trained == list(served.encode(text).bag) == list(served.encode(normalized(text)).bag)


def test_new_models_know_no_curly_apostrophes(normalizing: TrainedModel) -> None:
    assert normalizing.served.tokenizer.is_normalized
    assert {"don", "'", "t", "caf\u00e9", "wind"} <= set(normalizing.vocabulary.tokens)
    assert not any("\u201c" in token or "\u2019" in token for token in normalizing.vocabulary.tokens)


def test_a_model_is_calibrated_and_knows_what_to_expect(tiny: DataSet) -> None:
    model = train_model(tiny, replace(RECIPE, epochs=30), 0, ignore)
    assert model.confidence.temperature != 1.0
    assert 0.0 < model.confidence.threshold < 1.0
    assert model.baseline.documents == len(tiny.validation)
    assert model.baseline.tokens == sum(len(row.text.split()) for row in tiny.validation)
    assert model.baseline.unknown_tokens == 2 * len(tiny.validation)
    assert sum(model.baseline.labels.values()) == sum(model.baseline.confidence) == len(tiny.validation)


def test_a_folder_takes_no_more_than_it_may(tiny: DataSet) -> None:
    whole = train_model(tiny, RECIPE, 0, ignore)
    small = train_model(tiny, replace(RECIPE, max_bytes=16_000), 0, ignore)
    assert len(small.vocabulary) < len(whole.vocabulary)
    assert small.vocabulary.tokens == whole.vocabulary.tokens[: len(small.vocabulary)]
    with pytest.raises(BadData, match="allow more"):
        train_model(tiny, replace(RECIPE, max_bytes=12_000), 0, ignore)
