from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from intentctl.commands.compare import compare
from intentctl.output import EXIT_FAILED, EXIT_UNAVAILABLE, EXIT_USAGE
from tests.builders import refusing_address
from tests.conftest import ROOT, shared
from tests.end_to_end.processes import stack
from tests.evaluation.builders import word_model

app = typer.Typer()
app.command()(compare)

LABELS = ("music", "weather")
SURE = 0.9
GOOD = {f"w{number}": {"weather": SURE, "music": 1 - SURE} for number in range(8)} | {
    "song": {"music": SURE, "weather": 1 - SURE}
}
BAD = {word: {"music": SURE, "weather": 1 - SURE} for word in GOOD}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return a folder of two models: one knows the weather, the other only music."""
    folder = tmp_path / "models"
    word_model(folder, "good", LABELS, GOOD, threshold=0.7)
    word_model(folder, "bad", LABELS, BAD, threshold=0.7, fallback="other")
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.csv"
    rows = [*(f"w{number},weather" for number in range(8)), "song,music", "zebra,oos", "song,weather"]
    path.write_text("\n".join(("text,label", *rows)) + "\n")
    return path


@pytest.fixture
def here(models: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that holds the models and the texts, which is the working directory."""
    assert models.parent == texts.parent
    monkeypatch.chdir(models.parent)
    return models.parent


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"MODEL_DIR": None})


def told(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_rows_are_counted_by_who_is_right(models: Path, texts: Path) -> None:
    answer = told("bad", "good", texts, "--model-dir", models)
    assert (answer["a"]["id"], answer["a"]["fallback"], answer["b"]["id"]) == ("bad", "other", "good")
    assert answer["rows"] == {"all": 11, "in_scope": 10, "out_of_scope": 1}
    assert [answer[name] for name in ("both_right", "wins", "losses", "both_wrong")] == [2, 8, 0, 1]
    assert answer["agreement"] == pytest.approx(3 / 11)
    assert answer["accuracy"]["overall"] == {"a": pytest.approx(2 / 11), "b": pytest.approx(10 / 11)}
    assert answer["accuracy"]["in_scope"] == {"a": pytest.approx(1 / 10), "b": pytest.approx(9 / 10)}
    assert answer["mcnemar"] == {"p_value": pytest.approx(2 / 2**8), "significant_below": 0.05, "b_is": "better"}
    assert answer["labels"] == [{"label": "weather", "wins": 8, "losses": 0}]
    assert answer["differences"][0] == {"text": "w0", "label": "weather", "a": "music", "b": "weather"}
    assert len(answer["differences"]) == 8


def test_off_a_terminal_tables_are_lines_with_tabs(models: Path, texts: Path) -> None:
    result = run("bad", "good", texts, "--model-dir", models, "--show", "3")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert ["wins: only B, good, is right", "8"] in lines
    assert ["McNemar's test, p", "0.00781"] in lines
    assert any(line[0] == "verdict" and line[1].startswith("B is better") for line in lines)
    head = lines.index(["text", "label", "A: bad", "B: good", "B"])
    assert lines[head + 1 :] == [[f"w{number}", "weather", "music", "weather", "win"] for number in range(3)]
    assert "text\t" not in run("bad", "good", texts, "--model-dir", models, "--show", "0").stdout


@pytest.mark.parametrize(
    ("pair", "verdict", "code"),
    [
        (("good", "bad"), "worse", EXIT_FAILED),
        (("bad", "good"), "better", 0),
        (("good", "good"), "no significant difference", 0),
    ],
)
def test_scripts_may_ask_for_an_exit_code(
    pair: tuple[str, str], verdict: str, code: int, models: Path, texts: Path
) -> None:
    usual = (*pair, texts, "--model-dir", models)
    assert run(*usual).exit_code == 0
    result = run(*usual, "--fail-if-worse", "--json")
    assert (result.exit_code, json.loads(result.stdout)["mcnemar"]["b_is"]) == (code, verdict)


def test_a_difference_that_may_be_chance_is_called_so(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("text,label\nw1,weather\nsong,music\n")
    result = run("good", "bad", path, "--model-dir", models, "--fail-if-worse")
    assert result.exit_code == 0
    assert "these rows do not show which is better" in result.stdout


def test_a_threshold_is_that_of_both(models: Path, texts: Path) -> None:
    answer = told("bad", "good", texts, "--model-dir", models, "--threshold", "0.95")
    assert answer["a"]["threshold"] == answer["b"]["threshold"] == 0.95
    assert answer["agreement"] == 1
    assert answer["accuracy"]["in_scope"] == {"a": 0, "b": 0}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("good", "absent", "texts.csv"), EXIT_USAGE, "there is no model absent in the folder"),
        (("good", "bad", "absent.csv"), EXIT_USAGE, "absent.csv"),
        (("good", "texts.csv"), EXIT_USAGE, "data"),
        (("good", "bad", "texts.csv", "--split", "train"), EXIT_USAGE, "omit --split"),
        (("good", "bad", "texts.csv", "--frontend", refusing_address()), EXIT_UNAVAILABLE, "no answer from"),
    ],
    ids=lambda value: "",
)
@pytest.mark.usefixtures("here")
def test_what_cannot_be_compared_is_told(arguments: tuple[str, ...], code: int, message: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.slow
@pytest.mark.end_to_end
def test_real_services_and_the_model_folder_compare_alike(models: Path, texts: Path, tmp_path: Path) -> None:
    direct = told("bad", "good", texts, "--model-dir", models)
    with stack(models, tmp_path) as both:
        through = told("bad", "good", texts, "--frontend", both.frontend.address)
    for model in ("a", "b"):
        described = direct.pop(model)
        in_force = pytest.approx(described["threshold"])
        assert through.pop(model) == described | {"asked": "frontend", "threshold": in_force}
    assert through == direct


@pytest.mark.slow
def test_sample_models_are_compared_by_the_command_line() -> None:
    data = shared("datasets/clinc150/data_full.json")
    command = [sys.executable, "-m", "intentctl", "compare", "clinc150-banking", "clinc150", str(data), "--json"]
    result = subprocess.run([*command, "--model-dir", str(ROOT / "models")], check=False, capture_output=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["rows"]["all"] == 5500
    # One model knows 15 of the 150 intents of the other.
    assert answer["accuracy"]["in_scope"]["a"] <= 0.1
    assert answer["mcnemar"]["b_is"] == "better"
