from __future__ import annotations

import asyncio
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from intentctl.commands.evaluate import evaluate
from intentctl.output import EXIT_FAILED, EXIT_UNAVAILABLE, EXIT_USAGE
from serving.domain.errors import InvalidModelFile, Unavailable
from serving.domain.prediction import Outcome, Prediction, Query
from tests.builders import a_prediction, hosted_frontend, publish, refusing_address
from tests.conftest import ROOT, shared
from tests.end_to_end.processes import stack
from tests.evaluation.builders import word_model
from tests.fakes.backend import FakeBackend

PNG = b"\x89PNG\r\n\x1a\n"

app = typer.Typer()
app.command()(evaluate)

LABELS = ("music", "weather")
WORDS = {
    "sun": {"weather": 0.9, "music": 0.1},
    "rain": {"weather": 0.6, "music": 0.4},
    "song": {"music": 0.78, "weather": 0.22},
    "blues": {"weather": 0.75, "music": 0.25},
    "snow": {"weather": 0.95, "music": 0.05},
}
TEXTS = "text,label\nsun,weather\nrain,weather\nsong,music\nblues,music\nsnow,skiing\nzebra,oos\nsnow,oos\n"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def models(tmp_path: Path) -> Path:
    word_model(tmp_path / "models", "words", LABELS, WORDS, threshold=0.7)
    return tmp_path / "models"


@pytest.fixture
def here(models: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that holds the models and the texts, which is the working directory."""
    assert models.parent == texts.parent
    monkeypatch.chdir(models.parent)
    return models.parent


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.csv"
    path.write_text(TEXTS)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"MODEL_DIR": None})


def told(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def said(result: Result) -> str:
    return " ".join(result.stderr.replace("│", " ").split())


def test_the_figures_are_those_that_one_counts(models: Path, texts: Path) -> None:
    answer = told("words", texts, "--model-dir", models)
    assert answer["model"] == {
        "id": "words",
        "version": "1.0",
        "labels": 2,
        "fallback": "oos",
        "threshold": 0.7,
        "asked": "folder",
    }
    assert (answer["data"]["file"], answer["data"]["split"]) == ("texts.csv", None)
    assert answer["rows"] == {"all": 7, "in_scope": 5, "out_of_scope": 2, "of_unknown_labels": 1}
    assert answer["unknown_labels"] == {"skiing": 1}
    # Right: sun and song, and rain too without the threshold. Zebra scores a half and falls back; snow does not.
    assert answer["accuracy"] == {
        "overall": pytest.approx(3 / 7),
        "in_scope": pytest.approx(2 / 5),
        "in_scope_without_threshold": pytest.approx(3 / 5),
    }
    assert answer["out_of_scope"] == {
        "recall": pytest.approx(1 / 2),
        "precision": pytest.approx(1 / 2),
        "answered": pytest.approx(2 / 7),
        "fallen_back": pytest.approx(2 / 7),
    }
    # Bins have a width of one fifteenth: 0.9 right; 0.6 right; 0.78 right and 0.75 wrong; 0.95 wrong.
    assert answer["calibration"]["expected_calibration_error"] == pytest.approx(
        (0.1 + 0.4 + (0.78 + 0.75 - 1) + 0.95) / 5, abs=1e-6
    )
    assert answer["confusions"][0]["rows"] == 1
    assert answer["mistakes"][0]["text"] == "snow"


def test_a_threshold_replaces_that_of_the_model(models: Path, texts: Path) -> None:
    answer = told("words", texts, "--model-dir", models, "--threshold", "0")
    assert answer["model"]["threshold"] == 0
    assert answer["accuracy"]["in_scope"] == answer["accuracy"]["in_scope_without_threshold"] == pytest.approx(3 / 5)
    assert answer["out_of_scope"]["recall"] == 0


def test_labels_of_the_own_data_may_mean_out_of_scope(models: Path, texts: Path) -> None:
    answer = told("words", texts, "--model-dir", models, "--out-of-scope", "skiing")
    assert answer["rows"]["out_of_scope"] == 3
    assert answer["unknown_labels"] == {}


def test_off_a_terminal_tables_are_lines_with_tabs(models: Path, texts: Path) -> None:
    result = run("words", texts, "--model-dir", models, "--show", "2")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert ["accuracy in scope", "40.00%"] in lines
    assert ["out-of-scope recall", "50.00%"] in lines
    assert ["labels unknown to the model", "1"] in lines
    assert ["rows with these labels, counted as wrong", "1"] in lines
    head = lines.index(["label", "answer", "rows"])
    assert len(lines) == head + 1 + 2
    assert lines[head + 1] == ["music", "weather", "1"]


def test_splits_of_json_are_chosen(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    rows = {"train": [["sun", "weather"]] * 3, "val": [["song", "music"]] * 2, "test": [["sun", "weather"]]}
    path.write_text(json.dumps(rows | {"oos_test": [["zebra", "oos"]]}))
    for split, number in ((None, 2), ("test", 2), ("validation", 2), ("train", 3)):
        answer = told("words", path, "--model-dir", models, *(("--split", split) if split else ()))
        assert answer["rows"]["all"] == number
        assert answer["data"]["split"] == (split or "test")
    path.write_text(json.dumps({"train": [["sun", "weather"]]}))
    result = run("words", path, "--model-dir", models)
    assert (result.exit_code, said(result)) == (
        EXIT_USAGE,
        "error: data.json has no rows in the split test; name another",
    )


@pytest.mark.parametrize(
    ("minima", "code", "message"),
    [
        (("--minimum-accuracy", "0.4", "--minimum-oos-recall", "0.5"), 0, ""),
        (("--minimum-accuracy", "0.41"), EXIT_FAILED, "the accuracy in scope is 40.00%, and --minimum-accuracy 41.00%"),
        (("--minimum-oos-recall", "0.51"), EXIT_FAILED, "the out-of-scope recall is 50.00%"),
    ],
)
def test_minima_decide_the_exit_code(
    minima: tuple[str, ...], code: int, message: str, models: Path, texts: Path
) -> None:
    result = run("words", texts, "--model-dir", models, "--json", *minima)
    assert result.exit_code == code
    assert message in said(result)
    assert json.loads(result.stdout)["rows"]["all"] == 7


def test_a_minimum_that_nothing_can_be_held_against_is_a_wrong_call(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("text,label\nsun,weather\n")
    result = run("words", path, "--model-dir", models, "--minimum-oos-recall", "0.5")
    assert result.exit_code == EXIT_USAGE
    assert "--minimum-oos-recall: the data has no rows" in said(result)


def test_plots_and_a_report_are_written(models: Path, texts: Path, tmp_path: Path) -> None:
    plots, report = tmp_path / "plots", tmp_path / "report.html"
    assert run("words", texts, "--model-dir", models, "--plots", plots, "--report", report).exit_code == 0
    assert sorted(path.name for path in plots.iterdir()) == ["confusion.png", "reliability.png", "threshold.png"]
    assert all(path.read_bytes().startswith(PNG) for path in plots.iterdir())
    page = report.read_text()
    assert page.count('src="data:image/svg+xml;base64,') == 3
    assert "texts.csv" in page
    assert "http" not in re.sub(r"base64,[^\"]*|http-equiv", "", page)


def test_a_package_that_is_missing_costs_only_what_needs_it(
    models: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ("words", texts, "--model-dir", models)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(*usual).exit_code == 0
    result = run(*usual, "--plots", tmp_path / "plots")
    assert (result.exit_code, result.stdout) == (EXIT_FAILED, "")
    assert "--plots needs matplotlib" in said(result)
    assert run(*usual, "--report", tmp_path / "report.html").exit_code == 0
    assert "matplotlib is not installed" in (tmp_path / "report.html").read_text()

    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = run(*usual, "--report", tmp_path / "report.html")
    assert result.exit_code == EXIT_FAILED
    assert "--report needs jinja2" in said(result)

    for name in [name for name in sys.modules if name.partition(".")[0] == "evaluation"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numpy", None)
    result = run(*usual)
    assert result.exit_code == EXIT_FAILED
    assert "numpy is not installed" in said(result)


@pytest.mark.parametrize("option", ["--plots", "--report"])
def test_what_cannot_be_written_is_told(option: str, models: Path, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    result = run("words", texts, "--model-dir", models, option, tmp_path / "a-file" / "below")
    assert result.exit_code == EXIT_FAILED
    assert "cannot be written" in said(result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent", "texts.csv"), "there is no model absent in the folder"),
        (("../words", "texts.csv"), "the model id must be"),
        (("words", "absent.csv"), "absent.csv"),
        (("words", "texts.csv", "--threshold", "70"), "'70' is not a number from 0 to 1"),
        (("words", "texts.csv", "--threshold", "nan"), "'nan' is not a number from 0 to 1"),
        (("words", "texts.csv", "--minimum-accuracy", "much"), "'much' is not a number from 0 to 1"),
        (("words", "texts.csv", "--split", "test"), "texts.csv is a CSV file, which has no splits"),
        (("words", "texts.csv", "--split", "all"), "--split"),
        (("words", "texts.csv", "--model-dir", "absent"), "--model-dir absent is not a folder"),
        (("words", "bad.csv"), "bad.csv, line 3: 1 columns"),
        (("words",), "data"),
    ],
    ids=str,
)
def test_a_wrong_call_says_what_is_wrong(arguments: tuple[str, ...], message: str, here: Path) -> None:
    (here / "bad.csv").write_text("text,label\nsun,weather\nrain\n")
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (EXIT_USAGE, "")
    assert message in said(result)


def test_a_damaged_model_is_told(models: Path, texts: Path) -> None:
    (models / "words" / "model.pth").write_bytes(b"damaged")
    result = run("words", texts, "--model-dir", models)
    assert (result.exit_code, result.stdout) == (EXIT_FAILED, "")
    assert "error: words: model.pth seems to be plain text; save the object with torch.save" in said(result)


def test_help_loads_no_numpy() -> None:
    code = (
        "import sys; from intentctl.__main__ import app\n"
        "app(['evaluate', '--help'], standalone_mode=False); sys.exit('numpy' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


# Through a frontend.


async def asked(
    model_dir: Path, answer: Callable[[Query], Outcome], *arguments: object, texts: Path, model_id: str = "a"
) -> Result:
    """Run the command in a thread, because the frontend, whose engine is ``answer``, runs on the event loop."""
    publish(model_dir, "a")
    async with hosted_frontend(model_dir, FakeBackend(answer)) as address:
        return await asyncio.to_thread(run, model_id, texts, "--frontend", address, *arguments)


async def test_an_engine_that_tells_a_label_alone_is_measured_as_far_as_it_goes(tmp_path: Path, texts: Path) -> None:
    def answer(query: Query) -> Outcome:
        return Prediction("weather", 0.0, (), query.model_id, "2")

    result = await asked(tmp_path / "volume", answer, "--json", texts=texts)
    assert result.exit_code == 0, result.stderr
    outcome = json.loads(result.stdout)
    assert outcome["model"] == {
        "id": "a",
        "version": "2",
        "labels": None,
        "fallback": "oos",
        "threshold": None,
        "asked": "frontend",
    }
    assert outcome["accuracy"]["in_scope"] == pytest.approx(2 / 5)
    assert outcome["unknown_labels"] is None
    assert outcome["calibration"] == {"expected_calibration_error": None, "bins": []}


async def test_more_rows_than_a_batch_may_have_are_all_asked(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("text,label\n" + "".join(f"t{number},t{number}\n" for number in range(300)))
    result = await asked(tmp_path / "volume", a_prediction, "--json", texts=path)
    assert result.exit_code == 0, result.stderr
    outcome = json.loads(result.stdout)
    assert (outcome["rows"]["all"], outcome["accuracy"]["overall"]) == (300, 1.0)


async def test_a_text_that_is_refused_is_told_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text(f"text,label\nshort,a\n{'long ' * 1000},a\n")
    result = await asked(tmp_path / "volume", a_prediction, texts=path)
    assert (result.exit_code, result.stdout) == (EXIT_USAGE, "")
    assert "row 2 of the data was refused: document must be at most 4096 bytes" in said(result)


async def test_a_model_that_the_frontend_does_not_have_is_told(tmp_path: Path, texts: Path) -> None:
    result = await asked(tmp_path / "volume", a_prediction, texts=texts, model_id="absent")
    assert (result.exit_code, result.stdout) == (EXIT_USAGE, "")
    assert "there is no model absent at the frontend; `intentctl models --frontend` lists" in said(result)


@pytest.mark.parametrize(
    ("failure", "code"),
    [(InvalidModelFile("model.pth is damaged"), EXIT_FAILED), (Unavailable("no"), EXIT_UNAVAILABLE)],
)
async def test_an_engine_that_fails_is_told(failure: Exception, code: int, tmp_path: Path, texts: Path) -> None:
    def answer(query: Query) -> Outcome:
        assert isinstance(failure, InvalidModelFile | Unavailable)
        return failure

    result = await asked(tmp_path / "volume", answer, texts=texts)
    assert (result.exit_code, result.stdout) == (code, "")
    assert str(failure) in said(result)


def test_a_frontend_that_does_not_answer_is_told_with_what_to_do(texts: Path) -> None:
    address = refusing_address()
    result = run("a", texts, "--frontend", address)
    assert (result.exit_code, result.stdout) == (EXIT_UNAVAILABLE, "")
    assert f"no answer from {address}" in said(result)
    assert "`intentctl up` starts the services" in said(result)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_real_services_and_the_model_folder_give_the_same_figures(models: Path, texts: Path, tmp_path: Path) -> None:
    with stack(models, tmp_path) as both:
        for more in ((), ("--threshold", "0.8")):
            through = told("words", texts, "--frontend", both.frontend.address, *more)
            direct = told("words", texts, "--model-dir", models, *more)
            in_force = pytest.approx(direct["model"]["threshold"])
            assert through.pop("model") == direct.pop("model") | {"asked": "frontend", "threshold": in_force}
            assert through["accuracy"] == direct["accuracy"]
            assert through["out_of_scope"] == direct["out_of_scope"]
            assert through["unknown_labels"] == direct["unknown_labels"] == {"skiing": 1}
            assert through["confusions"] == direct["confusions"]
            error = through["calibration"]["expected_calibration_error"]
            assert error == pytest.approx(direct["calibration"]["expected_calibration_error"], abs=1e-6)


@pytest.mark.slow
def test_the_sample_model_is_measured_on_the_whole_test_split(figure: Callable[[str], None], tmp_path: Path) -> None:
    data = shared("datasets/clinc150/data_full.json")
    command = [sys.executable, "-m", "intentctl", "evaluate", "clinc150", str(data), "--json"]
    command += ["--model-dir", str(ROOT / "models"), "--report", str(tmp_path / "report.html")]
    result = subprocess.run(command, check=False, capture_output=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    outcome = json.loads(result.stdout)
    assert outcome["rows"] == {"all": 5500, "in_scope": 4500, "out_of_scope": 1000, "of_unknown_labels": 0}
    assert outcome["model"]["labels"] == 151
    manifest = json.loads((ROOT / "models" / "clinc150" / "manifest.json").read_text())
    assert outcome["model"]["threshold"] == manifest.get("Confidence", {}).get("threshold", 0.0)
    measured = manifest["Training"]["accuracy"]["test_in_scope"]
    assert outcome["accuracy"]["in_scope"] == pytest.approx(measured, abs=0.001)
    assert outcome["calibration"]["expected_calibration_error"] <= 0.03
    assert sum(each["rows"] for each in outcome["calibration"]["bins"]) == 4500
    figure(
        f"clinc150, test split: accuracy in scope {outcome['accuracy']['in_scope']:.2%}, out-of-scope recall "
        f"{outcome['out_of_scope']['recall']:.2%}, calibration error "
        f"{outcome['calibration']['expected_calibration_error']:.2%}"
    )


EXAMPLES = re.findall(
    r"^\$ (intentctl evaluate .*)\n((?:.+\n)+?)```", (ROOT / "docs" / "evaluation.md").read_text(), re.MULTILINE
)


@pytest.mark.parametrize(("command", "shown"), EXAMPLES)
def test_the_examples_of_the_documentation_are_what_a_terminal_shows(
    command: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, color_system=None, width=118)
    monkeypatch.setattr("intentctl.output.console", terminal)
    _, _, model_id, _, *options = shlex.split(command)
    data = shared("datasets/clinc150/data_full.json")
    assert run(model_id, data, *options, "--model-dir", ROOT / "models").exit_code == 0
    printed = {line.rstrip() for line in screen.getvalue().splitlines()}
    assert [line for line in shown.splitlines() if line not in printed] == []


def test_the_documentation_has_an_example() -> None:
    assert len(EXAMPLES) == 1


def test_the_documentation_names_every_key(models: Path, texts: Path) -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text()
    assert {key for key in keys_of(told("words", texts, "--model-dir", models)) if f"`{key}`" not in text} == {"skiing"}


def keys_of(value: Any) -> Iterator[str]:
    """Yield the keys of all objects in JSON."""
    if isinstance(value, dict):
        yield from value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys_of(each)
