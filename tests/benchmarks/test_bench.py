"""The command line of the benchmark, and one short run of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.bench import app
from benchmarks.load import WHERE_TO_GET_IT
from benchmarks.results import Results
from tests.benchmarks.builders import figures, results
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "one-process,nothing"], "there is no nothing"),
        (["--parts", "unary,nothing"], "nothing"),
        (["--transport", "nothing"], "there is no nothing"),
        (["--in-flight", "9"], "9 in flight"),
        (["--in-flight", "many"], "many"),
        (["--rounds", "0"], "--rounds"),
    ],
)
def test_a_wrong_call_measures_nothing(arguments: list[str], message: str) -> None:
    ended = CliRunner().invoke(app, arguments)

    assert ended.exit_code == 2
    assert message in ended.output


def test_without_h2load_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    ended = CliRunner().invoke(app, ["--quick", "--only", "echo"])

    assert ended.exit_code == 2
    assert "apt-get install nghttp2-client" in " ".join(ended.output.split())


@pytest.mark.parametrize(("rate", "code", "verdict"), [(40.0, 0, "reached"), (39.0, 1, "MISSED")])
def test_a_missed_target_is_the_exit_code(tmp_path: Path, rate: float, code: int, verdict: str) -> None:
    file = tmp_path / "figures.json"
    file.write_bytes(results({"two-processes": figures(rate), "echo": figures(10.0)}).to_json())

    ended = CliRunner().invoke(app, ["--from-json", str(file)])

    assert ended.exit_code == code
    assert verdict in ended.output


def test_a_file_of_something_else_is_a_wrong_call(tmp_path: Path) -> None:
    (tmp_path / "figures.json").write_text("{}")

    assert CliRunner().invoke(app, ["--from-json", str(tmp_path / "figures.json")]).exit_code == 2


@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.timeout(600)  # the first run installs a peer's environment
def test_a_short_run_measures_and_verifies(tmp_path: Path) -> None:
    if shutil.which("h2load") is None:
        pytest.skip(WHERE_TO_GET_IT)
    file = tmp_path / "figures.json"
    names = {"two-processes", "echo", "turn", "client"}
    command = (sys.executable, "-m", "benchmarks.bench", "--quick", "--seconds", "0.3", "--only", ",".join(names))

    ended = subprocess.run([*command, "--json", file], cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode in {0, 1}, ended.stderr
    measured = Results.from_json(file.read_bytes())
    assert measured.missing == {}
    (seen,) = measured.rounds
    assert set(seen) == names
    for system in seen.values():
        assert set(system.levels) == {1, 64}
        assert system.memory_mebibytes > 10
        for level in system.levels.values():
            assert 0 < level.latency.p50 <= level.latency.p90 <= level.latency.p99
            assert level.cpu_microseconds > 0
    assert seen["two-processes"].batch_documents_per_second
    assert seen["two-processes"].many_tenants_per_second
    assert seen["two-processes"].connections
    assert seen["turn"].connections
    assert seen["echo"].batch_documents_per_second is None
