from __future__ import annotations

import asyncio
import io
import json
import math
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from intentctl.commands.explain import explain
from serving.domain.errors import InvalidRequest
from serving.domain.explanation import Explanation, LabelExplanation
from serving.domain.prediction import Fallback, Outcome, Query, ScoredLabel
from tests.builders import a_prediction, hosted_frontend, publish, refusing_address
from tests.conftest import ROOT
from tests.fakes.backend import FakeBackend

MODELS = ROOT / "models"
DOCUMENT = "please tell me the exchange rate zzyzx"
PNG = b"\x89PNG\r\n\x1a\n"

app = typer.Typer()
app.command()(explain)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def from_folder(*arguments: object) -> Result:
    return run("banking77", DOCUMENT, "--model-dir", MODELS, *arguments)


def answer(query: Query) -> Outcome:
    if query.document == "bad":
        return InvalidRequest("the model has no such label to explain; request labels of its manifest")
    labels = ("best", *(query.explain or ()))
    parts = tuple(
        LabelExplanation(label, 3.0 - number, 0.5, (2.5 - number, 0.0)) for number, label in enumerate(labels)
    )
    prediction = a_prediction(query, "best")._replace(explanation=Explanation(("wake", "[red]up"), (1,), parts, 2.0))
    if query.threshold is None:
        return prediction
    return prediction._replace(label="oos", score=0.1, fallback=Fallback(ScoredLabel("best", 0.5), query.threshold))


@asynccontextmanager
async def frontend(model_dir: Path, backend: FakeBackend | None = None) -> AsyncIterator[Any]:
    """Yield a function that runs the command against one frontend, in a thread: the frontend runs on the event loop."""
    publish(model_dir, "a")
    async with hosted_frontend(model_dir, backend or FakeBackend(answer)) as address:

        async def ask(*arguments: object) -> Result:
            return await asyncio.to_thread(run, *arguments, "--frontend", address)

        yield ask


def test_a_model_folder_is_explained_without_a_service_and_the_parts_add_up() -> None:
    told = json.loads(from_folder("--json", "--label", "card_arrival").stdout)
    assert told["label"] == "exchange_rate"
    assert [part["label"] for part in told["explained"]] == ["exchange_rate", "card_arrival"]
    assert told["explained"][0]["score"] == pytest.approx(told["score"])
    for part in told["explained"]:
        of_tokens = math.fsum(token["adds"] for token in part["tokens"])
        of_words = math.fsum(word["own"] + word["ngrams"] for word in part["words"])
        assert part["bias"] + of_tokens == pytest.approx(part["logit"], abs=1e-9)
        assert part["bias"] + of_words == pytest.approx(part["logit"], abs=1e-9)
        assert [word["word"] for word in part["words"] if word["unknown"]] == ["zzyzx"]


def test_off_a_terminal_it_is_plain_text_with_the_unknown_words_marked() -> None:
    result = from_folder("--top", 3)
    assert result.exit_code == 0, result.stderr
    first, empty, label, text, *rows, sentence = result.stdout.splitlines()
    assert first.startswith("exchange_rate, with a score of 0.")
    assert (empty, label) == ("", "exchange_rate")
    assert text == "please tell me the exchange rate ~zzyzx~"
    assert rows[0].split("\t") == ["token", "made of", "times", "adds"]
    assert [row.split("\t")[0] for row in rows[-2:]] == ["bias", "logit"]
    *parts, logit = [float(row.split("\t")[3]) for row in rows[1:]]
    assert sum(parts) == pytest.approx(logit, abs=0.01)
    assert f"{logit:+.3f}" in sentence
    assert "\x1b" not in result.stdout


def test_on_a_terminal_words_are_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, color_system="truecolor", width=120)
    for module in ("intentctl.output", "intentctl.commands.explain", "intentctl.explanations.terminal"):
        monkeypatch.setattr(f"{module}.console", terminal)
    assert from_folder().exit_code == 0
    # The word that adds most has the full colour as its background.
    assert "48;2;88;166;255m" in written.getvalue()
    assert "~zzyzx~" in written.getvalue()
    assert "┃" in written.getvalue()


async def test_a_frontend_is_asked_for_the_explanation_with_labels_and_threshold(tmp_path: Path) -> None:
    backend = FakeBackend(answer)
    async with frontend(tmp_path, backend) as ask:
        result = await ask("a", "Wake [red]up", "--label", "b", "--label", "c", "--threshold", "0.7")
    assert result.exit_code == 0, result.stderr
    assert [query for batch in backend.batches for query in batch] == [
        Query("a", "Wake [red]up", threshold=0.7, explain=("b", "c"))
    ]
    assert result.stdout.startswith(
        "oos: the best label is best, and its score of 0.500 is below the threshold of 0.7\n"
    )
    assert result.stdout.count("Wake ~[red]up~") == 3
    assert "over the temperature 2" in result.stdout


async def test_json_has_everything(tmp_path: Path) -> None:
    async with frontend(tmp_path) as ask:
        told = json.loads((await ask("a", "Wake [red]up", "--threshold", "0.7", "--json")).stdout)
    assert told == {
        "document": "Wake [red]up",
        "label": "oos",
        "score": pytest.approx(0.1),
        "best": [],
        "fallback": {"best_label": "best", "best_score": 0.5, "threshold": 0.7},
        "model": {"id": "a", "version": "1.0"},
        "temperature": 2.0,
        "explained": [
            {
                "label": "best",
                "score": 0.5,
                "bias": 0.5,
                "logit": 3.0,
                "words": [
                    {"word": "wake", "unknown": False, "own": 2.5, "ngrams": 0.0},
                    {"word": "[red]up", "unknown": True, "own": 0.0, "ngrams": 0.0},
                ],
                "tokens": [
                    {"token": "wake", "kind": "word", "unknown": False, "times": 1, "adds": 2.5},
                    {"token": "[red]up", "kind": "word", "unknown": True, "times": 1, "adds": 0.0},
                ],
            }
        ],
    }


async def test_a_refusal_is_told_in_its_own_words(tmp_path: Path) -> None:
    async with frontend(tmp_path) as ask:
        for arguments, expected in (
            (("unknown", "x"), "no model has the runId unknown"),
            (("a", "bad"), "no such label"),
        ):
            result = await ask(*arguments)
            assert result.exit_code == 1
            assert expected in " ".join(result.stderr.split())
            assert result.stdout == ""


async def test_an_engine_that_explains_nothing_is_told(tmp_path: Path) -> None:
    async with frontend(tmp_path, FakeBackend()) as ask:
        result = await ask("a", "x")
    assert result.exit_code == 1
    assert "does not explain" in " ".join(result.stderr.split())


def test_a_frontend_that_does_not_answer_is_told_with_what_to_do() -> None:
    result = run("a", "x", "--frontend", refusing_address())
    assert result.exit_code == 3
    assert "`intentctl up` starts the services" in " ".join(result.stderr.split())


def test_a_page_and_a_png_are_written(tmp_path: Path) -> None:
    page, image = tmp_path / "why.html", tmp_path / "why.png"
    result = from_folder("--html", page, "--png", image, "--label", "card_arrival")
    assert result.exit_code == 0, result.stderr
    assert page.read_bytes().startswith(b"<!doctype html>")
    assert b"card_arrival" in page.read_bytes()
    assert image.read_bytes().startswith(PNG)


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    for option, name in (("--html", "why.html"), ("--png", "why.png")):
        result = from_folder(option, tmp_path / "none" / name)
        assert result.exit_code == 1
        assert "cannot be written: No such file or directory" in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr


def test_without_matplotlib_a_png_is_refused_in_plain_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = from_folder("--png", tmp_path / "why.png")
    assert result.exit_code == 1
    assert "--png needs matplotlib" in result.stderr
    assert from_folder("--html", tmp_path / "why.html").exit_code == 0


def test_without_numpy_a_folder_is_refused_in_plain_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "predictor" and "ngrams" not in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numpy", None)
    result = from_folder()
    assert result.exit_code == 1
    assert "numpy is not installed" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [["a"], [], ["a", "x", "--threshold", "2"], ["a", "x", "--top", "-1"], ["a", "x", "--model-dir", "no-such-folder"]],
    ids=" ".join,
)
def test_a_wrong_call_ends_with_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_model_of_a_folder_that_cannot_be_served_is_told(tmp_path: Path) -> None:
    publish(tmp_path, "a")
    for model_id, words in (
        ("a", "model.pth seems to be plain text; save the object with torch.save"),
        ("b", "no model"),
        ("../a", "runId"),
    ):
        result = run(model_id, "x", "--model-dir", tmp_path)
        assert result.exit_code == 1
        assert words in " ".join(result.stderr.split())
