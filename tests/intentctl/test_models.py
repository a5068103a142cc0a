from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from intentctl.commands.models import models
from tests.builders import publish, refusing_address

app = typer.Typer()
app.command()(models)


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"MODEL_DIR": None, **environment})


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    publish(tmp_path, "complete", ModelVersion="1.2", Tokenizer="characters")
    publish(tmp_path, "incomplete", files={"model.pth": b"weights"})
    publish(tmp_path, "only-manifest", files={})
    publish(tmp_path, "elsewhere", files={}, OpenInference={"model": "intent"})
    publish(tmp_path, "invalid", classes={"0": "a", "2": "b"})
    (tmp_path / "no-model").mkdir()
    (tmp_path / ".staging").mkdir()
    (tmp_path / "a-file").write_text("")
    return tmp_path


def listed(volume: Path) -> dict[str, dict[str, Any]]:
    result = run("--model-dir", str(volume), "--json")
    assert result.exit_code == 0
    return {row["id"]: row for row in json.loads(result.stdout)}


def test_every_folder_with_a_manifest_is_listed_with_its_state(volume: Path) -> None:
    rows = listed(volume)
    assert list(rows) == ["complete", "elsewhere", "incomplete", "invalid", "only-manifest"]
    assert rows["complete"]["state"] == rows["elsewhere"]["state"] == "complete"
    assert rows["incomplete"]["state"] == "no vocab.pth"
    assert rows["only-manifest"]["state"] == "no model.pth, no vocab.pth"
    assert rows["invalid"]["state"].startswith("manifest.json: classes")


def test_a_row_tells_what_the_manifest_says_and_how_large_the_files_are(volume: Path) -> None:
    row = listed(volume)["complete"]
    size = sum(path.stat().st_size for path in (volume / "complete").iterdir())
    assert row == {
        "id": "complete",
        "version": "1.2",
        "algorithm": "intent-classification",
        "labels": 2,
        "tokenizer": "characters",
        "bytes": size,
        "state": "complete",
    }
    assert listed(volume)["incomplete"]["tokenizer"] == "by vocabulary"
    assert listed(volume)["invalid"]["bytes"] > 0


def test_off_a_terminal_the_table_is_lines_with_tabs_and_nothing_is_cut_off(volume: Path) -> None:
    publish(volume, "long-" + "x" * 100, Algorithm="y" * 200)
    result = run("--model-dir", str(volume), COLUMNS="20")
    head, *rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert head == ["id", "version", "algorithm", "labels", "tokenizer", "bytes", "state"]
    ids = ["complete", "elsewhere", "incomplete", "invalid", "long-" + "x" * 100, "only-manifest"]
    assert [row[0] for row in rows] == ids
    assert rows[4][2] == "y" * 200
    assert all(len(row) == len(head) for row in rows)
    assert "\x1b" not in result.stdout


def test_the_folder_can_be_set_by_the_variable(volume: Path) -> None:
    assert run("--json", MODEL_DIR=str(volume)).stdout == run("--json", "--model-dir", str(volume)).stdout


def test_an_empty_folder_has_no_models(tmp_path: Path) -> None:
    assert json.loads(run("--model-dir", str(tmp_path), "--json").stdout) == []
    assert len(run("--model-dir", str(tmp_path)).stdout.splitlines()) == 1


@pytest.mark.parametrize("wrong", ["absent", "file"])
def test_a_folder_that_is_none_is_a_wrong_call(wrong: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("--model-dir", str(tmp_path / wrong))
    assert result.exit_code == 2
    assert "--model-dir" in result.stderr
    assert result.stdout == ""


async def test_a_predictor_that_does_not_answer_is_told_as_such(tmp_path: Path) -> None:
    arguments = ("--model-dir", str(tmp_path), "--resident", "--predictor", refusing_address())
    result = await asyncio.to_thread(run, *arguments)
    assert result.exit_code == 3
    assert "nothing listens on port" in " ".join(result.stderr.split())
    assert result.stdout == ""
