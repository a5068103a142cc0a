from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from intentctl.output import EXIT_FAILED, EXIT_USAGE
from serving.domain.errors import NonFiniteLogits
from serving.domain.prediction import Prediction, Query
from tests.conftest import ROOT, shared
from tests.intentctl.archives import (
    Reply,
    Request,
    Workers,
    asked,
    asked_many,
    clinc150_rows,
    intentctl,
    loaded,
    members_of,
    small_model,
    workers,
)
from tests.predictor.builders import state_dict

BATCH = 500
ODD_DOCUMENTS = (
    "",
    " \t\n",
    "rain",
    "RAIN rain, sun!",
    "no word that it knows",
    "<unk>",
    "<br />rain<br />",
    '"song"',
    "İstanbul ẞ 日本語 🎵",
    "rain " * 500,
)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return an empty folder of models."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def model_store(tmp_path: Path) -> Path:
    """Return an empty model store of TorchServe."""
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


Export = Callable[..., Path]


@pytest.fixture
def export(models: Path, model_store: Path) -> Export:
    """Return a function that exports a model and returns its archive."""

    def export(model_id: str, *arguments: str) -> Path:
        options = ("--model-dir", models, "--model-store", model_store, "--json")
        result = intentctl("export", "--torchserve", model_id, *options, *arguments)
        assert result.exit_code == 0, result.stderr
        return Path(json.loads(result.stdout)["file"])

    return export


# The archive.


def test_the_archive_holds_the_model_and_all_that_its_handler_needs(models: Path, export: Export) -> None:
    folder = small_model(models, "weather", ModelVersion="2.1", Extra=["kept"])
    archive = export("weather")
    members = members_of(archive)

    assert archive.name == "model-weather.mar"
    assert sorted(members) == [
        "MAR-INF/MANIFEST.json",
        "confidence.json",
        "intent_handler.py",
        "manifest.json",
        "model.pth",
        "predictor/__init__.py",
        "predictor/model/__init__.py",
        "predictor/model/layer_names.py",
        "predictor/model/ngrams.py",
        "predictor/model/normalization.py",
        "predictor/model/tokenizer.py",
        "vocab.pth",
        "vocabulary.json",
    ]
    for name in ("model.pth", "vocab.pth"):
        assert members[name] == (folder / name).read_bytes()
    before = json.loads((folder / "manifest.json").read_text())
    assert json.loads(members["manifest.json"]) == before | {"Algorithm": "intent-classification-torch"}
    assert members["predictor/model/tokenizer.py"] == (ROOT / "predictor" / "model" / "tokenizer.py").read_bytes()
    assert json.loads(members["MAR-INF/MANIFEST.json"])["model"] == {
        "modelName": "weather",
        "serializedFile": "model.pth",
        "handler": "intent_handler.py",
        "modelVersion": "2.1",
    }


def test_no_sums_of_a_published_manifest_are_left_in_the_archive(models: Path, tmp_path: Path, export: Export) -> None:
    folder = small_model(tmp_path, "elsewhere")
    assert intentctl("publish", folder, "weather", "--model-dir", models).exit_code == 0

    assert "Files" not in json.loads(members_of(export("weather"))["manifest.json"])


def test_the_same_model_gives_the_same_bytes(models: Path, tmp_path: Path, export: Export) -> None:
    folder = small_model(models, "weather")
    first = export("weather").read_bytes()
    shutil.move(folder, tmp_path / "kept")
    shutil.copytree(tmp_path / "kept", folder, copy_function=shutil.copyfile)

    assert export("weather", "--replace").read_bytes() == first


def test_an_archive_that_is_there_is_replaced_only_where_it_is_said(
    models: Path, model_store: Path, export: Export
) -> None:
    small_model(models, "weather")
    archive = export("weather")
    archive.write_text("another")
    options = ("--model-dir", models, "--model-store", model_store)
    refused = intentctl("export", "--torchserve", "weather", *options)

    assert (refused.exit_code, refused.stdout) == (EXIT_FAILED, "")
    assert "an archive model-weather.mar already exists; replace it with --replace" in refused.stderr
    assert archive.read_text() == "another"
    assert "model.pth" in members_of(export("weather", "--replace"))
    assert [path.name for path in model_store.iterdir()] == ["model-weather.mar"]


def test_the_frontend_finds_a_model_that_is_published_for_torchserve(models: Path, export: Export) -> None:
    small_model(models, "weather", Extra="kept")
    archive = export("weather", "--publish-as", "weather-ts")
    manifest = json.loads((models / "weather-ts" / "manifest.json").read_text())

    assert archive.name == "model-weather-ts.mar"
    assert json.loads(members_of(archive)["MAR-INF/MANIFEST.json"])["model"]["modelName"] == "weather-ts"
    assert (manifest["Algorithm"], manifest["Extra"]) == ("intent-classification-torch", "kept")
    assert set(manifest["Files"]) == {"model.pth", "vocab.pth"}
    assert loaded(models, "weather-ts").labels == loaded(models, "weather").labels
    assert json.loads((models / "weather" / "manifest.json").read_text())["Algorithm"] == "intent-classification"


def test_a_model_can_be_moved_to_torchserve_under_its_own_id(models: Path, model_store: Path, export: Export) -> None:
    small_model(models, "weather")
    options = ("--model-dir", models, "--model-store", model_store, "--publish-as", "weather")
    refused = intentctl("export", "--torchserve", "weather", *options)
    assert refused.exit_code == EXIT_FAILED
    assert "a model weather already exists; replace it with --replace" in refused.stderr
    assert list(model_store.iterdir()) == []

    export("weather", "--publish-as", "weather", "--replace")
    moved = json.loads((models / "weather" / "manifest.json").read_text())
    assert moved["Algorithm"] == "intent-classification-torch"
    # The archive of the model can be written again.
    export("weather", "--replace")


# Models that are not exported.


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"model.pth": b"PK\x03\x04"}, "model.pth is damaged; publish the model again"),
        ({"model.pth": b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."}, "requests code"),
        ({"vocab.pth": b"hello"}, "vocab.pth seems to be plain text; save the object with torch.save"),
        ({"manifest.json": b'{"Algorithm": "intent-classification", "classes": {"0": "a"}}'}, "the numbers must agree"),
        ({"manifest.json": b'{"Algorithm": "vision", "classes": {"0": "a", "1": "b"}}'}, "Algorithm is vision"),
    ],
)
def test_a_model_that_no_predictor_would_serve_is_refused_in_plain_words(
    models: Path, model_store: Path, files: dict[str, bytes], message: str
) -> None:
    folder = small_model(models, "weather")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    options = ("--model-dir", models, "--model-store", model_store, "--publish-as", "other")
    result = intentctl("export", "--torchserve", "weather", *options)

    assert (result.exit_code, result.stdout) == (EXIT_FAILED, "")
    assert message in result.stderr
    assert list(model_store.iterdir()) == []
    assert not (models / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("weather",), EXIT_USAGE, "--torchserve"),
        (("--torchserve", "../weather"), EXIT_USAGE, "the model id must be 1 to 128"),
        (("--torchserve", "weather", "--publish-as", "../weather"), EXIT_USAGE, "the model id must be 1 to 128"),
        (("--torchserve", "absent"), EXIT_FAILED, "no model has the runId absent"),
    ],
)
def test_wrong_calls_are_told(
    models: Path, model_store: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = intentctl("export", *arguments, "--model-dir", models, "--model-store", model_store)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert list(model_store.iterdir()) == []


def test_off_a_terminal_the_summary_is_lines_with_tabs(models: Path, model_store: Path) -> None:
    small_model(models, "weather", ModelVersion="3")
    result = intentctl("export", "--torchserve", "weather", "--model-dir", models, "--model-store", model_store)
    told = dict(line.split("\t") for line in result.stdout.splitlines())
    assert told["file"] == str(model_store / "model-weather.mar")
    assert (told["id"], told["version"], told["labels"], told["tokens"]) == ("weather", "3", "2", "5")
    assert (told["tokenizer"], told["published"]) == ("basic_english", "False")


@pytest.mark.parametrize("command", ["export", "import"])
def test_help_loads_no_numpy(command: str) -> None:
    code = (
        f"import sys; from intentctl.__main__ import app; app(['{command}', '--help'], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


# Answers of the handler, in a process that has only the archive and none of our other code.


@pytest.fixture(scope="module")
def served() -> Iterator[Workers]:
    """Yield the workers that serve archives."""
    with workers() as running:
        yield running


def labels_of(reply: Reply) -> list[str]:
    return [json.loads(answer)["result"] for answer in reply.answers]


@pytest.mark.slow
@pytest.mark.parametrize("model_id", ["1", "clinc150"])
def test_on_all_clinc150_test_rows_the_handler_answers_as_the_predictor_does(
    model_id: str, models: Path, export: Export, served: Workers, figure: Callable[[str], None]
) -> None:
    shutil.copytree(shared("seed-model/1") if model_id == "1" else ROOT / "models" / model_id, models / model_id)
    rows = clinc150_rows()
    documents = [document for document, _ in rows]
    chunks = [documents[begin : begin + BATCH] for begin in range(0, len(rows), BATCH)]
    model = loaded(models, model_id)
    expected = [
        answer
        for chunk in chunks
        for answer in model.predict([Query(model_id, document, 3) for document in chunk])
        if isinstance(answer, Prediction)
    ]

    one_by_one = [[asked(document) for document in chunk] for chunk in chunks]
    together = [[asked_many([(document, 3) for document in chunk])] for chunk in chunks]
    replies = served.handled(export(model_id), one_by_one + together)
    labels = [label for reply in replies[: len(chunks)] for label in labels_of(reply)]
    answers = [answer for reply in replies[len(chunks) :] for answer in json.loads(reply.answers[0])["results"]]

    right = sum(label == wanted for label, (_, wanted) in zip(labels, rows, strict=True))
    figure(f"right answers of the archived handler for {model_id}: {right} of {len(rows)}")
    assert labels == [answer.label for answer in expected] == [answer["result"] for answer in answers]
    assert [answer["score"] for answer in answers] == pytest.approx([answer.score for answer in expected], rel=1e-4)
    assert [label for label, _ in answers[0]["best"]] == [best.label for best in expected[0].best]
    if model_id == "1":
        assert right == 2465


def test_the_seeds_model_answers_the_books_question(models: Path, export: Export, served: Workers) -> None:
    shutil.copytree(shared("seed-model/1"), models / "1")
    (reply,) = served.handled(export("1"), [[asked("make a 10 minute timer")]])
    assert reply.answers == ['{"result": "timer"}']


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"default": None},
        {"default": -1},
        {"Tokenizer": "characters"},
        {"Tokenizer": "basic_english_characters"},
        {"weights": {name: torch.zeros_like(value) for name, value in state_dict(5, 4, 3, 2).items()}},
    ],
    ids=["default", "no-default", "default-of-none", "characters", "basic-english-characters", "equal-scores"],
)
def test_odd_documents_are_answered_as_the_predictor_does(
    models: Path, export: Export, served: Workers, keys: dict[str, Any]
) -> None:
    small_model(models, "odd", **keys)
    expected = loaded(models, "odd").predict([Query("odd", document, 2) for document in ODD_DOCUMENTS])
    batch = [asked_many([(document, 2) for document in ODD_DOCUMENTS]), *map(asked, ODD_DOCUMENTS)]
    (reply,) = served.handled(export("odd"), [batch])

    answers = json.loads(reply.answers[0])["results"]
    for answer, one, outcome in zip(answers, reply.answers[1:], expected, strict=True):
        assert isinstance(outcome, Prediction)
        assert json.loads(one) == {"result": outcome.label}
        assert (answer["result"], answer["score"]) == (outcome.label, pytest.approx(outcome.score, rel=1e-3))
        assert answer["best"] == [[best.label, pytest.approx(best.score, rel=1e-3)] for best in outcome.best]
    assert reply.statuses == {}


def test_an_answer_that_is_not_a_number_is_refused_alone(models: Path, export: Export, served: Workers) -> None:
    weights = state_dict(2, 4, 2)
    weights["embedding.weight"] = torch.tensor([[3e38] * 4, [1.0] * 4])
    small_model(models, "large", tokens=("huge", "small"), weights=weights)
    outcomes = loaded(models, "large").predict([Query("large", text) for text in ("huge huge", "small")])
    assert [type(outcome) for outcome in outcomes] == [NonFiniteLogits, Prediction]

    batch = [asked_many([("huge huge", 1), ("small", 0)]), asked("huge huge"), asked("small")]
    (reply,) = served.handled(export("large"), [batch])

    refused, answered = json.loads(reply.answers[0])["results"]
    assert (refused["code"], refused["message"]) == (500, "the model's answer is not a number; train the model again")
    assert "result" in answered
    assert json.loads(reply.answers[1]) == refused
    assert "result" in json.loads(reply.answers[2])
    assert reply.statuses == {"1": [500, refused["message"]]}


WRONG_INPUTS: tuple[dict[str, bytes], ...] = (
    {},
    {"other": b"rain"},
    {"data": b"\xff\xfe"},
    {"documents": b"\xff"},
    {"documents": b"["},
    {"documents": b"[" * 100_000},
    {"documents": b'{"document": "rain"}'},
    {"documents": b'["rain"]'},
    {"documents": b'[{"document": 1}]'},
    {"documents": b'[{"document": "rain", "k": -1}]'},
    {"documents": b'[{"document": "rain", "k": "1"}]'},
    {"documents": b'[{"document": "rain", "threshold": 1.1}]'},
    {"documents": b'[{"document": "rain", "threshold": -0.1}]'},
    {"documents": b'[{"document": "rain", "threshold": NaN}]'},
    {"documents": b'[{"document": "rain", "threshold": "0.5"}]'},
    {"documents": b'[{"document": "rain", "explain": true}]'},
    {"documents": b'[{"document": "rain", "explain": [1]}]'},
)


def test_a_bad_request_fails_alone_and_says_what_is_wrong(models: Path, export: Export, served: Workers) -> None:
    small_model(models, "weather")
    label = loaded(models, "weather").predict([Query("weather", "rain")])[0]
    assert isinstance(label, Prediction)
    batch = [request for wrong in WRONG_INPUTS for request in (Request(wrong), asked("rain"))]
    (reply,) = served.handled(export("weather"), [batch])

    assert labels_of(Reply(reply.answers[1::2], {})) == [label.label] * len(WRONG_INPUTS)
    for index, answer in list(enumerate(reply.answers))[::2]:
        told = json.loads(answer)
        assert (told["code"], reply.statuses[str(index)]) == (400, [400, told["message"]])
        assert told["message"].startswith("the input d")
        # TorchServe declares the length of the message in characters, but sends bytes.
        assert told["message"].isascii()
    assert len(reply.statuses) == len(WRONG_INPUTS)


def test_what_http_names_body_is_a_document_and_no_documents_have_no_answers(
    models: Path, export: Export, served: Workers
) -> None:
    small_model(models, "weather")
    batches = [
        [Request({"body": b"rain"}), asked("rain")],
        [asked_many([])],
        [Request({"documents": b'[{"document": "rain"}]'})],
    ]
    body, nothing, without_k = served.handled(export("weather"), batches)

    assert body.answers[0] == body.answers[1]
    assert json.loads(nothing.answers[0]) == {"results": []}
    assert json.loads(without_k.answers[0])["results"][0]["best"] == []


def test_a_document_alone_falls_back_as_the_manifest_says(models: Path, export: Export, served: Workers) -> None:
    small_model(models, "doubtful", Confidence={"threshold": 1.0, "fallback": "ask a human"})
    (reply,) = served.handled(export("doubtful"), [[asked("rain")]])
    assert reply.answers == ['{"result": "ask a human"}']


def test_what_cannot_be_explained_is_refused_alone(models: Path, export: Export, served: Workers) -> None:
    small_model(models, "weather")
    entries = [{"document": "rain", "explain": ["no such label"]}, {"document": "rain", "explain": ["yes"]}]
    (reply,) = served.handled(export("weather"), [[Request({"documents": json.dumps(entries).encode()})]])
    refused, explained = json.loads(reply.answers[0])["results"]

    assert (refused["code"], "no such label" in refused["message"]) == (400, True)
    assert explained["explanation"]["tokens"] == ["rain"]


def test_parts_that_single_precision_cannot_hold_are_told_as_the_predictor_does(
    models: Path, export: Export, served: Workers
) -> None:
    weights = {"embedding.weight": torch.tensor([[3e38, 0.0], [0.0, 3e38]]), "fc1.bias": torch.zeros(2)}
    weights["fc1.weight"] = torch.tensor([[0.5, 0.25], [0.25, 1.25]])
    small_model(models, "large", tokens=("up", "down"), weights=weights)
    (outcome,) = loaded(models, "large").predict([Query("large", "up down", explain=("no",))])
    assert isinstance(outcome, Prediction)
    assert outcome.explanation is not None

    entries = [{"document": "up down", "explain": ["no"]}]
    (reply,) = served.handled(export("large"), [[Request({"documents": json.dumps(entries).encode()})]])
    (answer,) = json.loads(reply.answers[0])["results"]
    for part, label in zip(answer["explanation"]["labels"], outcome.explanation.labels, strict=True):
        assert part["label"] == label.label
        assert part["contributions"] == pytest.approx(label.contributions)


def test_answers_that_torchserve_would_end_the_worker_for_are_refused(
    models: Path, export: Export, served: Workers
) -> None:
    small_model(models, "weather")
    long = json.dumps([{"document": "rain " * 60_000, "explain": ["no", "yes"]}]).encode()
    longer = json.dumps([{"document": "rain " * 60_000, "explain": ["no", "yes"]}] * 2).encode()
    batch = [Request({"documents": longer}), *[Request({"documents": long})] * 2, asked("rain")]
    (reply,) = served.handled(export("weather"), [batch])

    too_large, explained, too_much, answered = map(json.loads, reply.answers)
    assert (too_large["code"], too_much["code"]) == (413, 503)
    assert {index: status for index, (status, _) in reply.statuses.items()} == {"0": 413, "2": 503}
    assert len(explained["results"][0]["explanation"]["tokens"]) == 60_000
    assert "result" in answered
    assert sum(map(len, reply.answers)) < 6_553_500


def test_the_handler_tells_that_it_takes_many_documents(models: Path, export: Export, served: Workers) -> None:
    small_model(models, "weather")
    (reply,) = served.handled(export("weather"), [[Request({}, {"describe": "True"})]])

    assert json.loads(reply.answers[0]) == {"documents": True, "labels": 2}
    assert reply.statuses == {}
