from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.model.files.tensors import read_state_dict
from predictor.model.folded_network import FoldedNetwork
from predictor.model.intent_model import IntentModel, choose_tokenizer
from predictor.model.tokenizer import Tokenizer, TokenizerName
from predictor.model.vocabulary import Vocabulary, read_vocabulary
from serving.domain.errors import InvalidManifest, InvalidModelFile, NonFiniteLogits
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.domain.prediction import Outcome, Prediction, Query
from tests.conftest import shared
from tests.predictor.builders import manifest, model, model_state, network
from tests.serving.refusals import assert_fit_for_callers, refused

LABELS = ["alpha", "beta", "gamma", "delta"]
WORDS = ["<unk>", "the", "red", "blue", "!"]


def asked(model: IntentModel, documents: Sequence[str], k: int = 0) -> list[Prediction]:
    outcomes = model.predict([Query("m", document, k) for document in documents])
    return [answered(outcome) for outcome in outcomes]


def answered(outcome: Outcome) -> Prediction:
    assert isinstance(outcome, Prediction)
    return outcome


# The model of the book.


@cache
def book() -> IntentModel:
    folder = shared("seed-model/1")
    return IntentModel(
        ModelId("1"),
        Manifest.parse((folder / "manifest.json").read_bytes()),
        read_vocabulary((folder / "vocab.pth").read_bytes()),
        FoldedNetwork.from_arrays(read_state_dict((folder / "model.pth").read_bytes())),
    )


def rows() -> list[tuple[str, str]]:
    """Return the documents of CLINC150's test sets with their labels."""
    data = json.loads(shared("datasets/clinc150/data_full.json").read_text())
    return [(text, label) for part in ("test", "oos_test") for text, label in data[part]]


def test_the_model_of_the_book_answers_as_the_book_says() -> None:
    (answer,) = asked(book(), ["make a 10 minute timer"])
    assert answer.label == "timer"
    assert answer.response == '{"result": "timer"}'
    assert (answer.model_id, answer.model_version, answer.best) == ("1", "1.0", ())
    assert book().tokenizer == Tokenizer(TokenizerName.BASIC_ENGLISH_CHARACTERS)


def test_the_model_of_the_book_is_right_on_2465_of_the_5500_test_rows_in_a_batch_and_alone() -> None:
    documents = rows()
    answers = asked(book(), [text for text, _ in documents])
    assert len(answers) == 5500
    assert sum(answer.label == label for answer, (_, label) in zip(answers, documents, strict=True)) == 2465
    sample = random.Random(3).sample(range(5500), 300)
    alone = [asked(book(), [documents[index][0]])[0].label for index in sample]
    assert alone == [answers[index].label for index in sample]


# Documents.

ODD_DOCUMENTS = {
    "empty": "",
    "spaces": " \t\n\r\u3000\xa0 ",
    "unknown": "zzz yyy xxx",
    "nul": "\0",
    "controls": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "emoji": "😀👨\u200d👩\u200d👧",
    "combining-flood": "e" + "\u0301" * 10_000,
    "lone-surrogates": "\ud800 \udfff the",
    "bidirectional": "\u202ethe\u202c",
    "one-long-token": "x" * 100_000,
    "only-quotes": '"""',
    "only-breaks": "<br /><br />",
}


@pytest.mark.parametrize("default", [0, None, -1], ids=["unk", "none", "minus-1"])
@pytest.mark.parametrize("tokenizer", TokenizerName)
def test_any_document_has_an_answer(default: int | None, tokenizer: TokenizerName) -> None:
    subject = model(WORDS, LABELS, default, Tokenizer=tokenizer)
    together = asked(subject, list(ODD_DOCUMENTS.values()), k=4)
    for document, answer in zip(ODD_DOCUMENTS.values(), together, strict=True):
        assert answer.label in LABELS
        assert math.isfinite(answer.score)
        assert asked(subject, [document])[0].label == answer.label


@given(st.lists(st.text(st.characters()), min_size=1, max_size=8))
@settings(max_examples=60)
def test_an_answer_does_not_depend_on_the_other_documents_of_its_batch(documents: list[str]) -> None:
    subject = model(WORDS, LABELS, 0)
    together = asked(subject, documents, k=4)
    for document, answer in zip(documents, together, strict=True):
        alone = asked(subject, [document], k=4)[0]
        assert alone.label == answer.label
        assert alone.score == pytest.approx(answer.score, rel=1e-4)


def test_unknown_tokens_take_the_default_index() -> None:
    assert model(WORDS, LABELS, 0).encode("the green red").bag == [1, 0, 2]
    assert model(WORDS, LABELS, 3).encode("the green red").bag == [1, 3, 2]


@pytest.mark.parametrize("default", [None, -1])
def test_unknown_tokens_are_left_out_where_there_is_no_default(default: int | None) -> None:
    subject = model(WORDS, LABELS, default)
    assert subject.encode("the green red").bag == [1, 2]
    assert subject.encode("green").bag == []
    assert np.array_equal(subject.logits(["the green red"]), subject.logits(["the red"]))
    assert np.array_equal(subject.logits(["green"]), subject.logits([""]))


def test_a_batch_of_nothing_has_no_answers() -> None:
    subject = model(WORDS, LABELS)
    assert subject.predict([]) == []
    assert subject.logits([]).shape == (0, len(LABELS))


# The best labels.


@pytest.mark.parametrize(("k", "count"), [(0, 0), (1, 1), (3, 3), (4, 4), (5, 4), (1 << 31, 4)])
def test_the_k_best_labels_are_told_best_first(k: int, count: int) -> None:
    (answer,) = asked(model(WORDS, LABELS, 0), ["the red !"], k)
    scores = [scored.score for scored in answer.best]
    assert len(scores) == count
    assert scores == sorted(scores, reverse=True)
    assert len({scored.label for scored in answer.best}) == count
    if answer.best:
        assert (answer.best[0].label, answer.best[0].score) == (answer.label, answer.score)
    if count == len(LABELS):
        assert sum(scores) == pytest.approx(1.0, abs=1e-6)


def test_scores_are_the_softmax_of_the_logits() -> None:
    subject = model(WORDS, LABELS, 0)
    (answer,) = asked(subject, ["the red"], 4)
    exponents = [math.exp(value) for value in subject.logits(["the red"])[0].tolist()]
    expected = {label: value / sum(exponents) for label, value in zip(LABELS, exponents, strict=True)}
    assert {scored.label: scored.score for scored in answer.best} == pytest.approx(expected, rel=1e-5)


def flat_model(labels: list[str], bias: list[float]) -> IntentModel:
    """Return a model whose logits are ``bias`` for every document."""
    weights = {"embedding.weight": torch.zeros(5, 2), "fc1.weight": torch.zeros(len(bias), 2)}
    arrays = {name: value.numpy() for name, value in weights.items()} | {"fc1.bias": torch.tensor(bias).numpy()}
    return IntentModel(ModelId("m"), manifest(labels), Vocabulary.of(WORDS, 0), FoldedNetwork.from_arrays(arrays))


@pytest.mark.parametrize("count", [2, 5, 17, 150, 1000])
def test_of_equal_labels_the_first_is_the_answer_and_the_best(count: int) -> None:
    labels = [f"label {number}" for number in range(count)]
    (answer,) = asked(flat_model(labels, [0.5] * count), ["the"], k=count)
    assert answer.label == "label 0"
    assert [scored.label for scored in answer.best] == labels


def test_logits_that_are_not_finite_fail_their_own_document_only() -> None:
    state = model_state(WORDS, LABELS)
    # Two such rows are beyond the range of a float32.
    state["embedding.weight"][2] = 3e38
    state["fc1.weight"] *= 10
    subject = model(WORDS, LABELS, 0, state=state)
    good, bad, also_good = subject.predict([Query("m", text) for text in ("the", "the red", "")])
    assert isinstance(good, Prediction)
    assert isinstance(also_good, Prediction)
    assert isinstance(bad, NonFiniteLogits)
    assert_fit_for_callers(bad)


def test_large_logits_have_finite_scores() -> None:
    (answer,) = asked(flat_model(["a", "b"], [3e38, -3e38]), ["the"], 2)
    assert [(scored.label, scored.score) for scored in answer.best] == [("a", 1.0), ("b", 0.0)]


# Parts that fit together.


def built(
    labels: Sequence[str] = LABELS,
    vocabulary: Vocabulary | None = None,
    rows: int = 5,
    classes: int = 4,
    **keys: object,
) -> IntentModel:
    if vocabulary is None:
        vocabulary = Vocabulary.of(WORDS, 0)
    return IntentModel(ModelId("m"), manifest(labels, **keys), vocabulary, network(rows, 3, classes))


@pytest.mark.parametrize("count", [0, 1, 3, 5, 400])
def test_labels_and_outputs_must_agree(count: int) -> None:
    with refused(InvalidModelFile, match=f"{count} classes, but model.pth has 4 outputs"):
        built([str(number) for number in range(count)])


def test_a_vocabulary_may_have_fewer_tokens_than_there_are_rows_but_not_more() -> None:
    assert built(rows=5).labels == tuple(LABELS)
    assert built(rows=6).labels == tuple(LABELS)
    with refused(InvalidModelFile, match="5 tokens, but model.pth has 4 rows"):
        built(rows=4)


@pytest.mark.parametrize("default", [5, 6, -2, 1 << 62, -(1 << 63)])
def test_a_default_index_without_a_row_is_refused(default: int) -> None:
    with refused(InvalidModelFile, match="not one of the 5 rows"):
        built(vocabulary=Vocabulary.of(WORDS, default))


@pytest.mark.parametrize("index", [5, -1, 1 << 64])
def test_an_index_without_a_row_is_refused(index: int) -> None:
    with refused(InvalidModelFile, match="not one of the 5 rows"):
        built(vocabulary=Vocabulary.with_indices(("a", "b"), {"a": 0, "b": index}, None))


def test_a_default_of_a_vocabulary_without_tokens_needs_a_row_too() -> None:
    assert built(vocabulary=Vocabulary.of([], None)).encode("the").bag == []
    assert built(vocabulary=Vocabulary.of([], 0)).encode("the").bag == [0]


def test_the_size_grows_with_weights_vocabulary_and_labels() -> None:
    least = built().size
    assert built(rows=500).size >= least + 495 * 3 * 4
    assert built(rows=500, vocabulary=Vocabulary.of([f"token {n}" for n in range(500)], 0)).size > built(rows=500).size
    assert built(["x" * 10_000, *LABELS[1:]]).size > least + 9000


# Tokenizers.

CHARACTERS = ["a", "b", "z", "0", "'", "."]


@pytest.mark.parametrize(
    ("tokens", "default", "expected"),
    [
        (["the", "red"], None, TokenizerName.BASIC_ENGLISH),
        ([*CHARACTERS, "the"], None, TokenizerName.BASIC_ENGLISH),
        ([], None, TokenizerName.BASIC_ENGLISH),
        (["<unk>", "<pad>"], 0, TokenizerName.BASIC_ENGLISH),
        (CHARACTERS, None, TokenizerName.BASIC_ENGLISH_CHARACTERS),
        (["<unk>", *CHARACTERS], 0, TokenizerName.BASIC_ENGLISH_CHARACTERS),
        (["<unk>", "<pad>", "<bos>", "[UNK]", *CHARACTERS], None, TokenizerName.BASIC_ENGLISH_CHARACTERS),
        (["UNKNOWN", *CHARACTERS], 0, TokenizerName.BASIC_ENGLISH_CHARACTERS),
        (["UNKNOWN", *CHARACTERS], None, TokenizerName.BASIC_ENGLISH),
        ([*CHARACTERS, "日", "é", "😀"], None, TokenizerName.BASIC_ENGLISH_CHARACTERS),
        ([*CHARACTERS, " "], None, TokenizerName.CHARACTERS),
        ([*CHARACTERS, "\n"], None, TokenizerName.CHARACTERS),
        ([*CHARACTERS, "A"], None, TokenizerName.CHARACTERS),
        (["<unk>", *CHARACTERS, "É"], 0, TokenizerName.CHARACTERS),
        ([*CHARACTERS, ""], None, TokenizerName.BASIC_ENGLISH),
    ],
)
def test_a_tokenizer_that_is_not_named_is_told_from_the_vocabulary(
    tokens: list[str], default: int | None, expected: TokenizerName
) -> None:
    assert choose_tokenizer(manifest(LABELS), Vocabulary.of(tokens, default)) == Tokenizer(expected)


@pytest.mark.parametrize("name", ["char_vocab", "word_vocab"])
def test_recorded_vocabularies_have_the_tokenizer_that_made_them(name: str) -> None:
    vocabulary = read_vocabulary(shared(f"golden/torchtext/{name}.pth").read_bytes())
    expected = {"char_vocab": TokenizerName.CHARACTERS, "word_vocab": TokenizerName.BASIC_ENGLISH}
    assert choose_tokenizer(manifest(LABELS), vocabulary) == Tokenizer(expected[name])


@pytest.mark.parametrize("name", TokenizerName)
@pytest.mark.parametrize("tokens", [["the", "red"], CHARACTERS, [*CHARACTERS, " "]], ids=["words", "letters", "raw"])
def test_a_named_tokenizer_is_taken_whatever_the_vocabulary(name: TokenizerName, tokens: list[str]) -> None:
    assert choose_tokenizer(manifest(LABELS, Tokenizer=name.value), Vocabulary.of(tokens, None)) == Tokenizer(name)
    assert model(tokens, LABELS, Tokenizer=name.value).tokenizer == Tokenizer(name)


@pytest.mark.parametrize("name", ["spacy", "BASIC_ENGLISH", "Basic_English", " basic_english", "os.system", "x" * 256])
def test_a_tokenizer_that_is_not_known_is_refused_and_those_that_are_are_told(name: str) -> None:
    with refused(InvalidManifest, match="basic_english, basic_english_characters, characters") as caught:
        model(WORDS, LABELS, Tokenizer=name)
    assert "xxx" not in str(caught.value)
