"""Each check, with a model that has this fault and no other."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from intentctl.doctor.examine import examine
from predictor.model.loader import FileLimits, Loader
from serving.domain.errors import ModelNotFound
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query
from serving.volume.model_store import ModelStore
from tests.conftest import ROOT, shared
from tests.fakes.torchtext import legacy_vocab
from tests.intentctl.doctor import LABELS, MODEL_ID, WORDS, Model, baseline, change, found, problem, weights_of

CHARACTERS = [*"abcdefghijklmnopqrstuvwxyz"]


def with_tokens(*tokens: str, tokenizer: str | None = "basic_english+normalized", default: int | None = 0) -> Model:
    """Return the model with other tokens after the unknown token, and another tokenizer."""
    it = Model(["<unk>", *tokens], default)
    if tokenizer is None:
        del it.manifest["Tokenizer"]
    else:
        it.manifest["Tokenizer"] = tokenizer
    return it


def with_confidence(**keys: Any) -> Model:
    it = Model()
    it.manifest["Confidence"] = {**it.manifest["Confidence"], **keys}
    return it


def without(*path: str) -> Model:
    it = Model()
    inner = it.manifest
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return it


def with_baseline(**keys: Any) -> Model:
    it = Model()
    it.manifest["Baseline"] |= keys
    return it


def of_training(it: Model, tokenizer: str) -> Model:
    """Return the model as `intentctl train` makes it, with ``tokenizer``."""
    it.manifest["Training"] = {"recipe": {"tokenizer": tokenizer}}
    return it


def with_labels(*labels: str, fallback: str = "oos") -> Model:
    it = Model()
    it.name(labels)
    it.manifest["Confidence"]["fallback"] = fallback
    return it


def with_weights(change_of: Callable[[dict[str, torch.Tensor]], Any], it: Model | None = None) -> Model:
    it = it or Model()
    it.weights = weights_of(len(it.tokens), len(it.manifest["classes"]))
    change_of(it.weights)
    return it


def scaled(factor: float, *names: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def scale(weights: dict[str, torch.Tensor]) -> None:
        for name in names:
            weights[name] *= factor

    return scale


def biased(weights: dict[str, torch.Tensor]) -> None:
    weights["fc1.bias"][1] = 100.0


def second_like_the_first(weights: dict[str, torch.Tensor]) -> None:
    weights["fc1.weight"][1] = weights["fc1.weight"][0]


def zeros(rows: slice) -> Callable[[dict[str, torch.Tensor]], None]:
    def clear(weights: dict[str, torch.Tensor]) -> None:
        weights["embedding.weight"][rows] = 0.0

    return clear


def sealed(it: Model, value: bool) -> Model:
    it.sealed = value
    return it


def wide(weights: dict[str, torch.Tensor]) -> None:
    for name in ("embedding.weight", "fc1.weight"):
        weights[name] = torch.nn.functional.pad(weights[name], (0, 150_000))


def with_fc_size() -> Model:
    it = with_weights(lambda weights: weights.update({"fc2.weight": torch.eye(3), "fc2.bias": torch.zeros(3)}))
    it.manifest["fc_size"] = 128
    return it


def legacy(**attributes: Any) -> Model:
    it = Model()
    it.vocabulary = legacy_vocab(it.tokens, **attributes)
    return it


ENGLISH = (*WORDS, "make", "timer", "please", "café")
FAULTS: dict[str, tuple[Callable[[], Model], dict[str, str]]] = {
    # Tokens of the vocabulary, and tokens of documents.
    "characters-behind-words": (lambda: with_tokens(*CHARACTERS), {"characters-behind-words": "error"}),
    "characters-and-a-stray-word-behind-the-predictors-own-choice": (
        lambda: with_tokens(*CHARACTERS, "timer", tokenizer=None),
        {"characters-behind-words": "error"},
    ),
    "characters-without-a-name": (
        lambda: with_tokens(*CHARACTERS, tokenizer=None),
        {"characters-without-a-name": "warning"},
    ),
    "words-behind-characters": (
        lambda: with_tokens(*WORDS, tokenizer="characters"),
        {"words-behind-characters": "error"},
    ),
    "words-behind-book-characters": (
        lambda: with_tokens(*WORDS, tokenizer="basic_english_characters"),
        {"words-behind-characters": "error"},
    ),
    "all-capitals": (lambda: with_tokens(*(word.title() for word in WORDS)), {"capitals": "error"}),
    "some-capitals": (lambda: with_tokens(*ENGLISH, "Rain"), {"capitals": "warning"}),
    "few-capitals": (lambda: with_tokens(*(f"word{number}" for number in range(99)), "Rain"), {"capitals": "note"}),
    "curly-apostrophes-behind-normalization": (
        lambda: with_tokens(*WORDS, "don\u2019t", "\uff2f\uff2b".lower(), "cafe\u0301"),
        {"not-normalized": "warning"},
    ),
    "curly-n-grams-behind-normalization": (
        lambda: with_tokens(
            *WORDS,
            "rain sun",
            "don\u2019t go",
            '" ra',
            '"n\u2019t',
            tokenizer="basic_english+normalized+words:2+characters:3-3",
        ),
        {"not-normalized": "warning"},
    ),
    "words-that-few-texts-lack": (
        lambda: of_training(with_baseline(unknown_tokens=900), "basic_english+normalized"),
        {"baseline-unknown-tokens": "note"},
    ),
    "words-that-another-tokenizer-lacks": (
        lambda: of_training(with_baseline(unknown_tokens=900), "characters"),
        {"baseline-unknown-tokens": "error"},
    ),
    "no-normalization": (lambda: with_tokens(*WORDS, tokenizer="basic_english"), {"no-normalization": "note"}),
    "n-grams-of-words-not-made": (
        lambda: with_tokens(*WORDS, "rain sun", "sun wind band"),
        {"ngrams-not-made": "warning"},
    ),
    "n-grams-of-characters-not-made": (
        lambda: with_tokens(*WORDS, '"ra', '"n b', tokenizer="basic_english+normalized+words:2"),
        {"ngrams-not-made": "warning", "ngrams-not-known": "warning"},
    ),
    "longer-n-grams-than-made": (
        lambda: with_tokens(*WORDS, "rain sun", "sun wind band", tokenizer="basic_english+normalized+words:2"),
        {"ngrams-not-made": "warning"},
    ),
    "n-grams-not-known": (
        lambda: with_tokens(*WORDS, tokenizer="basic_english+normalized+words:2+characters:2-4"),
        {"ngrams-not-known": "warning"},
    ),
    "tokens-of-another-tokenizer": (lambda: with_tokens(*WORDS, "don't", "end."), {"cut": "warning"}),
    "word-pieces": (
        lambda: with_tokens(*WORDS, *(f"##{word}" for word in WORDS)),
        {"subwords": "error"},
    ),
    "sentence-pieces": (
        lambda: with_tokens(*(f"▁{word}" for word in WORDS)),
        {"subwords": "error"},
    ),
    # The vocabulary.
    "no-default-index": (lambda: with_tokens(*WORDS, default=None), {"no-default-index": "warning"}),
    "default-index-of-the-documentation": (lambda: with_tokens(*WORDS, default=-1), {"no-default-index": "warning"}),
    "no-unknown-token": (lambda: Model(list(WORDS), None), {"no-default-index": "warning"}),
    "word-for-unknown-tokens": (lambda: Model(list(WORDS), 0), {"word-for-unknown-tokens": "warning"}),
    "itos-and-stoi-differ": (
        lambda: legacy(stoi={"<unk>": 0} | {word: len(WORDS) - number for number, word in enumerate(WORDS)}),
        {"indices-that-differ": "error"},
    ),
    "stoi-that-has-grown": (
        lambda: legacy(stoi={"<unk>": 0} | {word: number for number, word in enumerate(WORDS, start=1)} | {"new": 0}),
        {"indices-that-differ": "note"},
    ),
    "rows-without-a-token": (
        lambda: with_weights(lambda weights: weights.update(weights_of(20, 3))),
        {"rows-without-a-token": "warning"},
    ),
    "read-as-latin-1-and-lowered": (
        lambda: with_tokens(*WORDS, "café".encode().decode("latin-1").lower(), tokenizer=None),
        {"decoded-wrongly": "warning", "no-normalization": "note"},
    ),
    "read-as-windows-1252": (
        lambda: with_tokens(*WORDS, "don’t".encode().decode("cp1252"), tokenizer=None),
        {"decoded-wrongly": "warning", "no-normalization": "note"},
    ),
    "byte-order-mark": (
        lambda: with_tokens(*WORDS, "\ufeffrain", tokenizer="basic_english"),
        {"decoded-wrongly": "warning", "no-normalization": "note"},
    ),
    "letters-and-accents-apart": (
        lambda: with_tokens(*WORDS, "cafe\u0301", tokenizer="basic_english"),
        {"not-composed": "warning", "no-normalization": "note"},
    ),
    # Labels.
    "one-label": (lambda: with_labels("oos"), {"one-label": "error", "threshold-without-effect": "warning"}),
    "same-label-twice": (lambda: with_labels("music", "music", "oos"), {"same-label-twice": "warning"}),
    "empty-label": (lambda: with_labels("music", " ", "oos"), {"empty-label": "error"}),
    "white-space-behind": (lambda: with_labels("music", "weather ", "oos"), {"odd-white-space": "warning"}),
    "line-break-within": (lambda: with_labels("music", "good\nweather", "oos"), {"odd-white-space": "warning"}),
    "alike-but-for-case": (
        lambda: with_labels("bad_weather", "Bad Weather", "oos"),
        {"alike-but-for-case": "warning"},
    ),
    "only-numbers": (lambda: with_labels("0", "1", "2", fallback="0"), {"only-numbers": "warning"}),
    # Confidence.
    "no-temperature": (lambda: without("Confidence", "temperature"), {"no-temperature": "note"}),
    "no-threshold": (lambda: without("Confidence", "threshold"), {"no-threshold": "note"}),
    "threshold-without-effect": (lambda: with_confidence(threshold=0.3), {"threshold-without-effect": "warning"}),
    "unknown-fallback": (lambda: with_confidence(fallback="nothing"), {"unknown-fallback": "note"}),
    "fallback-written-otherwise": (lambda: with_confidence(fallback="OOS"), {"unknown-fallback": "warning"}),
    "threshold-out-of-reach": (
        lambda: with_confidence(temperature=3.0, threshold=0.9),
        {"threshold-out-of-reach": "error"},
    ),
    # Baseline.
    "no-baseline": (lambda: without("Baseline"), {"no-baseline": "note"}),
    "small-baseline": (
        lambda: with_baseline(**{**baseline(LABELS, 30), "empty_documents": 0}),
        {"no-baseline": "note"},
    ),
    "baseline-of-other-labels": (
        lambda: with_baseline(labels={"travel": 300}),
        {"baseline-of-other-labels": "error"},
    ),
    "baseline-sums": (lambda: with_baseline(documents=299), {"baseline-sums": "error"}),
    "baseline-unknown-tokens": (lambda: with_baseline(unknown_tokens=900), {"baseline-unknown-tokens": "error"}),
    "baseline-empty-documents": (lambda: with_baseline(empty_documents=30), {"baseline-empty-documents": "warning"}),
    "baseline-fallbacks": (lambda: with_baseline(fallbacks=200), {"baseline-fallbacks": "warning"}),
    # Weights.
    "rows-of-zeros": (lambda: with_weights(zeros(slice(1, 2))), {"rows-of-zeros": "warning"}),
    "one-answer": (lambda: with_weights(biased), {"one-answer": "error"}),
    "labels-that-never-win": (lambda: with_weights(second_like_the_first), {"labels-that-never-win": "warning"}),
    "hardly-any-difference": (
        lambda: with_weights(scaled(0.01, "fc1.weight", "fc1.bias"), with_confidence(threshold=0.34)),
        {"hardly-any-difference": "error"},
    ),
    "strange-magnitude": (lambda: with_weights(scaled(1e5, "fc1.weight")), {"strange-magnitude": "warning"}),
    "other-hidden-size": (with_fc_size, {"other-hidden-size": "warning"}),
    # Files.
    "no-sums": (lambda: sealed(Model(), False), {"no-sums": "note"}),
    "no-version": (lambda: without("ModelVersion"), {"no-version": "note"}),
    "too-large": (lambda: with_weights(wide), {"too-large": "warning"}),
}


def test_a_model_without_a_fault_has_no_findings(tmp_path: Path) -> None:
    Model().write(tmp_path)
    assert found(tmp_path) == {}


@pytest.mark.parametrize(("make", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found_and_nothing_else(make: Callable[[], Model], expected: dict[str, str], tmp_path: Path) -> None:
    make().write(tmp_path)
    assert found(tmp_path) == expected


def test_words_of_every_language_are_no_fault(tmp_path: Path) -> None:
    words = ("não", "manhã", "château", "straße", "été", "пожалуйста", "こんにちは", "ångström", "über", "100€")
    with_tokens(*WORDS, *words).write(tmp_path)
    assert found(tmp_path) == {}


def test_the_sample_models_are_healthy() -> None:
    for folder in sorted(ROOT.glob("models/*/manifest.json")):
        examined = examine(ROOT / "models", ModelId(folder.parent.name))
        assert {str(finding.severity) for finding in examined.findings} <= {"note"}, folder.parent.name


# Contents of the findings.


def test_the_sample_of_the_books_system_is_found_with_evidence() -> None:
    seed = shared("seed-model/1")
    (finding,) = (finding for finding in examine(seed.parent, ModelId("1")).findings if finding.severity != "note")
    assert finding.check == "characters-without-a-name"
    assert "51 of 51 tokens of the vocabulary are single characters" in finding.problem
    assert "290 of the 292 words in the model's labels are not in the vocabulary" in finding.problem
    assert '"Tokenizer": "basic_english_characters"' in finding.advice


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("n-grams-of-words-not-made", '"Tokenizer": "basic_english+normalized+words:3"'),
        ("n-grams-of-characters-not-made", '"Tokenizer": "basic_english+normalized+characters:2-3"'),
        ("characters-behind-words", "26 of 26 tokens"),
        ("curly-apostrophes-behind-normalization", "'don\u2019t'"),
        ("no-normalization", '"Tokenizer": "basic_english+normalized"'),
        ("same-label-twice", "'music'"),
        ("fallback-written-otherwise", "'oos'"),
        ("labels-that-never-win", "'weather' (to 'music')"),
        ("one-answer", "'music'"),
        ("threshold-out-of-reach", "the threshold is 0.9"),
        ("word-for-unknown-tokens", "'rain'"),
        ("other-hidden-size", "fc_size is 128"),
        ("too-large", "most of it in model.pth"),
        ("baseline-unknown-tokens", "50% of the tokens"),
    ],
)
def test_a_finding_names_what_is_wrong(fault: str, words: str, tmp_path: Path) -> None:
    make, (check, *_) = FAULTS[fault]
    make().write(tmp_path)
    assert words in problem(tmp_path, check)


def test_what_is_said_of_labels_holds_for_every_document(tmp_path: Path) -> None:
    with_weights(second_like_the_first).write(tmp_path)
    store = ModelStore(tmp_path)
    loader = Loader(store, FileLimits())
    model = loader.load(MODEL_ID, loader.fingerprint(MODEL_ID))
    chance = random.Random(3)
    documents = [" ".join(chance.choices(WORDS, k=chance.randrange(9))) for _ in range(500)]
    answers = model.predict([Query(MODEL_ID, document, threshold=0.0) for document in documents])
    assert {answer.label for answer in answers if isinstance(answer, Prediction)} == {"music", "oos"}


# Folders without a loadable model.


@pytest.mark.parametrize(
    ("classes", "check"),
    [
        ({"weather": 0, "music": 1, "oos": 2}, "classes-turned-around"),
        ({"weather": "0", "music": "1", "oos": "2"}, "classes-turned-around"),
        ({"1": "weather", "2": "music", "3": "oos"}, "classes-from-one"),
    ],
)
def test_classes_that_are_no_classes_are_explained(classes: dict[str, Any], check: str, tmp_path: Path) -> None:
    change(Model().write(tmp_path), {"classes": classes})
    assert found(tmp_path) == {check: "error", "cannot-be-loaded": "error"}


def test_labels_that_are_numbers_are_not_taken_for_classes_turned_around(tmp_path: Path) -> None:
    with_labels("2", "0", "1", fallback="0").write(tmp_path)
    assert found(tmp_path) == {"only-numbers": "warning"}


def damaged_without_sums(folder: Path) -> None:
    change(folder, {"Files": {}})
    (folder / "model.pth").write_bytes(b"x")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "model.pth").unlink(), "the model has no model.pth yet. finish its upload"),
        (lambda folder: (folder / "manifest.json").unlink(), "the model has no manifest.json yet. finish its upload"),
        (
            lambda folder: (folder / "manifest.json").write_text("{"),
            "manifest.json cannot be read: it is not valid JSON",
        ),
        (lambda folder: (folder / "vocab.pth").write_bytes(b"x"), "vocab.pth is not the file that manifest.json"),
        (lambda folder: change(folder, {"Tokenizer": "spacy"}), "Tokenizer must be omitted or one of basic_english"),
        (lambda folder: change(folder, {"classes": {"0": "a"}}), "has 1 classes, but model.pth has 3 outputs"),
        (damaged_without_sums, "model.pth seems to be plain text"),
    ],
    ids=["no-weights", "no-manifest", "no-json", "other-sum", "unknown-tokenizer", "too-few-classes", "damaged"],
)
def test_a_model_that_cannot_be_loaded_is_refused_in_the_words_of_the_predictor(
    damage: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    damage(Model().write(tmp_path))
    assert words in problem(tmp_path, "cannot-be-loaded")


def test_what_else_is_wrong_with_the_manifest_is_told_where_the_model_cannot_be_loaded(tmp_path: Path) -> None:
    folder = with_labels("music", "weather ", "oos").write(tmp_path)
    (folder / "model.pth").unlink()
    assert found(tmp_path) == {"cannot-be-loaded": "error", "odd-white-space": "warning"}


def test_of_a_model_at_another_server_the_manifest_is_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / MODEL_ID
    folder.mkdir()
    manifest = {"Algorithm": "intent-triton", "ModelVersion": "1", "OpenInference": {}, "classes": {"0": "a", "1": "A"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert found(tmp_path) == {"elsewhere": "note", "alike-but-for-case": "warning"}


def test_a_folder_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        examine(tmp_path, MODEL_ID)
