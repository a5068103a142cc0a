from __future__ import annotations

import csv
import io
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from intentctl.commands.capacity import capacity
from intentctl.output import EXIT_FAILED, EXIT_USAGE
from predictor.cache.memory import default_budget
from predictor.model.loader import FileLimits, Loader
from serving.domain.model_id import ModelId
from serving.volume.model_store import ModelStore
from tests.builders import publish
from tests.conftest import ROOT
from tests.samples import copy_samples

MODELS = ROOT / "models"
USUAL = ("--tenants", "2000", "--model-bytes", "2MB", "--model-memory", "400MB")
PNG = b"\x89PNG\r\n\x1a\n"

app = typer.Typer()
app.command()(capacity)


def run(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"MODEL_DIR": None, **environment})


def told(*arguments: object, **environment: str) -> Any:
    result = run(*arguments, "--json", **environment)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def row_of(answer: Any, replicas: int) -> Any:
    return next(row for row in answer["by_replicas"] if row["replicas"] == replicas)


def counts_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "counts.csv"
    path.write_text(text)
    return path


def test_replicas_with_affinity_hold_more_models_and_without_it_the_same() -> None:
    answer = told(*USUAL, "--replicas", 3, "--requests-per-second", 500)
    one, three = row_of(answer, 1), row_of(answer, 3)
    assert one["with_affinity"] == one["without_affinity"]
    assert three["with_affinity"]["models_in_memory"] == pytest.approx(600, rel=0.02)
    assert three["without_affinity"]["models_in_memory"] == pytest.approx(200)
    assert three["with_affinity"]["hit_rate"] > three["without_affinity"]["hit_rate"] + 0.15
    for side in (three["with_affinity"], three["without_affinity"]):
        assert side["cold_loads_per_second"] == pytest.approx(500 * (1 - side["hit_rate"]))


def test_the_replicas_needed_are_told_for_hit_rate_for_requests_and_for_both() -> None:
    answer = told(*USUAL, "--hit-rate", 0.95, "--requests-per-second", 5000)
    needed = answer["replicas_needed"]
    assert row_of(answer, needed["with_affinity"]["for_hit_rate"])["with_affinity"]["hit_rate"] >= 0.95
    assert row_of(answer, needed["with_affinity"]["for_requests"])["with_affinity"]["utilisation"] <= 1
    assert row_of(answer, needed["without_affinity"]["for_requests"])["without_affinity"]["utilisation"] <= 1
    assert needed["with_affinity"]["for_both"] == max(
        needed["with_affinity"]["for_hit_rate"], needed["with_affinity"]["for_requests"]
    )
    assert needed["without_affinity"]["for_hit_rate"] is None
    assert needed["without_affinity"]["for_both"] is None


def test_the_memory_told_for_a_predictor_alone_gives_the_hit_rate() -> None:
    budget = told(*USUAL, "--hit-rate", 0.9)["budget_bytes_of_one_for_hit_rate"]
    answer = told("--tenants", 2000, "--model-bytes", "2MB", "--model-memory", budget)
    assert row_of(answer, 1)["with_affinity"]["hit_rate"] == pytest.approx(0.9, abs=1e-4)


def test_request_counts_stand_for_popularity(tmp_path: Path) -> None:
    path = counts_file(tmp_path, "model,requests\na,98\nb,1\n\nc,1\nd,0\n")
    answer = told("--counts", path, "--model-bytes", 100, "--model-memory", 100)
    assert answer["models"] == 3
    assert answer["share_of_most_popular"] == pytest.approx(0.98)
    assert 0.9 < row_of(answer, 1)["with_affinity"]["hit_rate"] < 1


def test_models_are_measured_as_the_predictor_counts_them(tmp_path: Path) -> None:
    models = copy_samples(tmp_path / "models")
    loader = Loader(ModelStore(models), FileLimits())
    sizes = {name: loader.load(name, loader.fingerprint(name)).size for name in ModelStore(models).model_ids()}
    answer = told("--model-dir", models, "--model-memory", "1GB")
    assert answer["models"] == len(sizes)
    assert answer["bytes_of_all_models"] == sum(sizes.values())
    assert told("--model-dir", models, "--tenants", 2 * len(sizes))["bytes_of_all_models"] == 2 * sum(sizes.values())

    path = counts_file(tmp_path, "model,requests\nclinc150,5\nbanking77,5\n")
    by_name = told("--model-dir", models, "--counts", path)
    assert by_name["bytes_of_all_models"] == sizes[ModelId("clinc150")] + sizes[ModelId("banking77")]


def test_of_a_large_folder_a_sample_is_loaded_and_the_others_estimated(tmp_path: Path) -> None:
    source = MODELS / "clinc150-banking"
    for number in range(100):
        folder = tmp_path / f"tenant-{number}"
        folder.mkdir()
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    publish(tmp_path, "incomplete", files={})
    publish(tmp_path, "tenant-0", files={"model.pth": b"damaged", "vocab.pth": b"damaged"})
    loader = Loader(ModelStore(MODELS), FileLimits())
    size = loader.load(ModelId(source.name), loader.fingerprint(ModelId(source.name))).size
    answer = told("--model-dir", tmp_path)
    assert answer["models"] == 100
    assert answer["bytes_of_all_models"] == pytest.approx(99 * size, rel=0.001)


def test_memory_is_what_a_predictor_takes_by_itself_in_a_container_of_that_limit() -> None:
    answer = told("--tenants", 10, "--model-bytes", 1000, "--memory-limit", "2GiB")
    assert answer["budget_bytes"] == default_budget(2 << 30)
    assert told("--tenants", 10, "--model-bytes", 1000)["budget_bytes"] > 0


def test_a_model_larger_than_the_memory_is_named_as_refused() -> None:
    arguments = ("--tenants", 10, "--model-bytes", "2MB", "--model-memory", "1MB")
    answer = told(*arguments)
    assert answer["models_larger_than_budget"] == 10
    assert row_of(answer, 1)["with_affinity"]["hit_rate"] == 0
    assert "models too large for that memory, refused\t10\n" in run(*arguments).stdout


def test_off_a_terminal_both_tables_are_lines_with_tabs() -> None:
    result = run(*USUAL, "--replicas", 3)
    assert result.exit_code == 0
    rows = list(csv.reader(io.StringIO(result.stdout), delimiter="\t"))
    head = next(index for index, row in enumerate(rows) if row[0] == "replicas")
    assert {len(row) for row in rows[:head]} == {2}
    assert {len(row) for row in rows[head:]} == {len(rows[head])}
    assert len(set(rows[head])) == len(rows[head])
    assert ["requested models", "2000"] in rows[:head]
    assert "\x1b" not in result.stdout


def test_a_plot_is_written(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    assert run(*USUAL, "--plot", path).exit_code == 0
    assert path.read_bytes().startswith(PNG)


def test_a_plot_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    result = run(*USUAL, "--plot", tmp_path / "absent" / "plot.png")
    assert result.exit_code == EXIT_FAILED
    assert "cannot be written" in " ".join(result.stderr.split())


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run(*USUAL, "--plot", tmp_path / "plot.png")
    assert result.exit_code == EXIT_FAILED
    assert "--plot needs matplotlib" in " ".join(result.stderr.split())
    assert run(*USUAL).exit_code == 0

    monkeypatch.setitem(sys.modules, "predictor.model.loader", None)
    result = run("--model-dir", MODELS)
    assert result.exit_code == EXIT_FAILED
    assert "give --model-bytes" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--model-bytes", "2MB"), "--tenants"),
        (("--tenants", "10", "--model-bytes", "two"), "'two' is not a size"),
        (("--tenants", "10", "--model-bytes", "0"), "at least 1"),
        (("--tenants", "0", "--model-bytes", "2MB"), "--tenants"),
        (("--tenants", "10", "--model-dir", "absent"), "--model-dir absent"),
        (("--tenants", "10", "--model-bytes", "2MB", "--zipf", "-1"), "--zipf"),
        (("--tenants", "10", "--model-bytes", "2MB", "--hit-rate", "1.5"), "--hit-rate"),
        (("--tenants", "10", "--model-bytes", "2MB", "--model-memory", "1GB", "--memory-limit", "2GB"), "not both"),
        (("--counts", "absent.csv"), "--counts"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(arguments: tuple[str, ...], part: str) -> None:
    result = run(*arguments)
    assert result.exit_code == EXIT_USAGE
    assert part in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "the header must be model,requests"),
        ("model;requests\na;1\n", "line 1: the header must be model,requests"),
        ("model,requests\n", "has no requests"),
        ("model,requests\na,0\n", "has no requests"),
        ("model,requests\na,many\n", "line 2: 'many' is not a number"),
        ("model,requests\na,-1\n", "line 2: '-1' is not a number"),
        ("model,requests\na,nan\n", "line 2: 'nan' is not a number"),
        ("model,requests\na,1\na,2\n", "line 3: 'a' appears twice; keep one row"),
        ("model,requests\na,1,2\n", "line 2: 3 columns"),
        ('model,requests\n"a,1\n', "not valid CSV"),
    ],
)
def test_a_file_of_counts_that_cannot_be_used_is_told_with_its_line(text: str, part: str, tmp_path: Path) -> None:
    result = run("--counts", counts_file(tmp_path, text), "--model-bytes", "2MB")
    assert result.exit_code == EXIT_FAILED
    assert part in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_counts_of_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    path.write_bytes(b"model,requests\n\xff,1\n")
    result = run("--counts", path, "--model-bytes", "2MB")
    assert result.exit_code == EXIT_FAILED
    assert "not UTF-8" in result.stderr


def test_counts_of_a_model_that_is_not_there_are_told(tmp_path: Path) -> None:
    path = counts_file(tmp_path, "model,requests\nclinc150,5\ngone,5\n")
    result = run("--counts", path, "--model-dir", MODELS)
    assert result.exit_code == EXIT_FAILED
    assert "'gone'" in result.stderr


def test_a_folder_without_models_is_told(tmp_path: Path) -> None:
    result = run("--model-dir", tmp_path)
    assert result.exit_code == EXIT_FAILED
    assert "give --model-bytes" in " ".join(result.stderr.split())


EXAMPLES = re.findall(
    r"^\$ (intentctl capacity .*)\n((?:.+\n)+?)```", (ROOT / "docs" / "scaling.md").read_text(), re.MULTILINE
)


@pytest.mark.parametrize(("command", "shown"), EXAMPLES)
def test_the_examples_of_the_documentation_are_what_a_terminal_shows(
    command: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, color_system=None, width=118)
    monkeypatch.setattr("intentctl.output.console", terminal)
    assert run(*shlex.split(command)[2:]).exit_code == 0
    printed = {line.rstrip() for line in screen.getvalue().splitlines()}
    assert [line for line in shown.splitlines() if line not in printed] == []


def test_the_documentation_has_examples() -> None:
    assert len(EXAMPLES) == 3
