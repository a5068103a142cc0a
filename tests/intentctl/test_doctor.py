"""``intentctl doctor``, as its users run it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from intentctl.commands.doctor import doctor
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from tests.builders import refusing_address
from tests.conftest import ROOT, shared
from tests.end_to_end.processes import Service, running_service, transports
from tests.intentctl.doctor import LABELS, MODEL_ID, WORDS, Model, baseline, change

app = typer.Typer()
app.command()(doctor)


def run(root: Path, *arguments: str, model_id: str = MODEL_ID) -> Result:
    return CliRunner().invoke(app, [model_id, "--model-dir", str(root), *arguments], env={"MODEL_DIR": None})


def told(result: Result) -> Any:
    return json.loads(result.stdout)


def checks(result: Result) -> dict[str, str]:
    return {finding["check"]: finding["severity"] for finding in told(result)["findings"]}


def test_a_healthy_model_ends_with_zero(tmp_path: Path) -> None:
    Model().write(tmp_path)
    result = run(tmp_path, "--json")
    assert result.exit_code == 0
    assert told(result) == {"id": "patient", "healthy": True, "findings": [], "traffic": None, "drift": None}


def test_notes_do_not_make_a_model_unhealthy(tmp_path: Path) -> None:
    it = Model()
    del it.manifest["Baseline"]
    it.write(tmp_path)
    result = run(tmp_path, "--json")
    assert (result.exit_code, checks(result), told(result)["healthy"]) == (0, {"no-baseline": "note"}, True)


@pytest.mark.parametrize(
    ("classes", "severity"), [(["music", "weather ", "oos"], "warning"), (["music", "", "oos"], "error")]
)
def test_errors_and_warnings_end_with_one(classes: list[str], severity: str, tmp_path: Path) -> None:
    it = Model()
    it.name(classes)
    it.write(tmp_path)
    result = run(tmp_path, "--json")
    assert result.exit_code == 1
    assert told(result)["healthy"] is False
    assert list(checks(result).values()) == [severity]


def test_the_worst_comes_first(tmp_path: Path) -> None:
    it = Model()
    it.name(["weather ", "", "oos"])
    del it.manifest["Baseline"]
    it.write(tmp_path)
    assert list(checks(run(tmp_path, "--json")).values()) == ["error", "warning", "note"]


def test_off_a_terminal_findings_are_lines_with_tabs(tmp_path: Path) -> None:
    it = Model()
    it.name(["music", "a\tb", "oos"])
    it.write(tmp_path)
    head, line = run(tmp_path).stdout.splitlines()
    assert head.split("\t") == ["severity", "check", "problem", "advice"]
    assert line.split("\t")[:2] == ["warning", "odd-white-space"]
    assert len(line.split("\t")) == 4


def test_a_person_sees_a_table_and_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = Model()
    it.name(["music", "weather [bold]", "music"])
    it.write(tmp_path)
    screen = Console(force_terminal=True, width=120, record=True, color_system="truecolor")
    monkeypatch.setattr("intentctl.doctor.report.console", screen)
    result = run(tmp_path)
    shown = screen.export_text(clear=False)
    assert result.exit_code == 1
    assert "same-label-twice" in shown
    assert "patient: not healthy (0 errors, 1 warning, 1 note)" in shown
    assert "\x1b[33mwarning" in screen.export_text(styles=True)


@pytest.mark.parametrize(
    ("model_id", "model_dir", "words"),
    [
        ("no-such-model", "", "there is no model no-such-model in the folder"),
        ("../etc", "", "the model id"),
        (MODEL_ID, "no-such-folder", "is not a folder"),
    ],
)
def test_wrong_calls_are_told_as_such(model_id: str, model_dir: str, words: str, tmp_path: Path) -> None:
    Model().write(tmp_path)
    result = run(tmp_path / model_dir, model_id=model_id)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_a_released_name_means_the_version_that_answers_for_it(tmp_path: Path) -> None:
    for version in ("1", "2"):
        Model().write(tmp_path)
        (tmp_path / "name").mkdir(exist_ok=True)
        (tmp_path / MODEL_ID).rename(tmp_path / "name" / version)
    unreleased = run(tmp_path, model_id="name")
    assert unreleased.exit_code == 1
    assert "no version of name is released; release one, or give one: name@1, name@2" in unreleased.stderr
    (tmp_path / "name" / "release.json").write_text('{"revision": 1, "stable": "2", "labels": {"old": "1"}}')
    for asked, answering in (("name", "name@2"), ("name@old", "name@1"), ("name@1", "name@1")):
        result = run(tmp_path, "--json", model_id=asked)
        assert (result.exit_code, told(result)["id"]) == (0, answering)


def test_the_sample_of_the_books_system_is_found() -> None:
    seed = shared("seed-model/1")
    result = run(seed.parent, "--json", model_id="1")
    assert result.exit_code == 1
    assert checks(result)["characters-without-a-name"] == "warning"


def test_it_runs_as_a_command_of_intentctl(tmp_path: Path) -> None:
    Model().write(tmp_path)
    command = [sys.executable, "-m", "intentctl", "doctor", MODEL_ID, "--model-dir", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["severity\tcheck\tproblem\tadvice"]


# With a predictor.


async def test_a_predictor_that_does_not_answer_ends_with_three_behind_what_was_found(tmp_path: Path) -> None:
    it = Model()
    it.name(["music", "weather ", "oos"])
    it.write(tmp_path)
    address = refusing_address()
    result = await asyncio.to_thread(run, tmp_path, "--json", "--predictor", address)
    assert result.exit_code == 3
    assert checks(result) == {"odd-white-space": "warning"}
    assert f"no answer from {address}: nothing listens on port" in " ".join(result.stderr.split())


def ask(service: Service, documents: list[str]) -> None:
    requests = [pb.PredictorPredictRequest(runId=MODEL_ID, document=document) for document in documents]
    with grpc.insecure_channel(service.address) as channel:
        stub = pb_grpc.PredictorStub(channel)
        stub.PredictorPredict(requests[0], timeout=30)
        stub.PredictorPredictBatch(pb.PredictorPredictBatchRequest(requests=requests[1:]), timeout=30)


@pytest.mark.end_to_end
@pytest.mark.parametrize("transport", transports())
def test_traffic_like_the_validation_is_healthy_and_another_language_is_not(tmp_path: Path, transport: str) -> None:
    root = tmp_path / "models"
    it = Model()
    it.manifest["Baseline"] = baseline(LABELS) | {"empty_documents": 0, "unknown_tokens": 0, "tokens": 300}
    it.write(root)
    with running_service("predictor", root, tmp_path, transport=transport) as service:
        predictor = ("--json", "--predictor", service.address)
        assert checks(run(root, *predictor)) == {"no-traffic": "note"}

        ask(service, [word for word in WORDS for _ in range(25)])
        result = run(root, *predictor)
        assert (result.exit_code, checks(result)) == (0, {})
        assert told(result)["traffic"]["counts"]["documents"] == 25 * len(WORDS)
        assert {signal["name"]: signal["verdict"] for signal in told(result)["drift"]["signals"]} == dict.fromkeys(
            ("unknown_tokens", "empty_documents", "confidence", "labels"), "none"
        )

        ask(service, ["wie wird das Wetter morgen"] * 300)
        result = run(root, *predictor)
        assert result.exit_code == 1
        assert {"mostly-unknown", "drift-unknown-tokens", "drift-empty-documents"} <= {
            check for check, severity in checks(result).items() if severity == "error"
        }

        # The copy on the volume now has another version.
        change(root / MODEL_ID, {"ModelVersion": "2.0"})
        assert checks(run(root, *predictor)) == {
            "other-version": "warning",
            "mostly-unknown": "error",
            "many-empty": "warning",
        }
