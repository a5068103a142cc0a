"""The runbook's commands, flags, queries and log lines exist, and a backup can be restored."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from frontend.settings import FrontendSettings
from intentctl.__main__ import app
from predictor.settings import PredictorSettings
from tests.conftest import ROOT
from tests.deploy.observability import RUNBOOK, promtool, queries_of_the_runbook

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group
SERVICES = ("serving", "frontend", "predictor", "model_service")


def commands(program: str) -> list[str]:
    """Return the calls of ``program`` in the runbook, inline or on lines of their own."""
    text = RUNBOOK.read_text()
    lines = re.findall(r"^    +(.*)$", text, re.MULTILINE) + re.findall(r"`([^`]+)`", text)
    found = [call for line in lines for call in re.findall(rf"(?:^|\bdo |; |\| )({program} [^;|]*)", line)]
    assert found
    return [re.sub(r"\s(#|&&|>).*", "", call).strip() for call in found]


@pytest.mark.parametrize("call", sorted(set(commands("intentctl"))))
def test_a_command_of_intentctl_is_one_with_its_flags_and_arguments(call: str) -> None:
    name, *rest = shlex.split(call)[1:]
    command = COMMANDS[name].loaded()
    if hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    with typer.Context(command) as context:
        # The parser raises for unknown flags and for flags whose value is missing.
        parsed, left, _ = command.make_parser(context).parse_args(rest)
    assert left == []
    wanted = [each.name for each in command.params if each.param_type_name == "argument" and each.required]
    # A command that is only mentioned has no arguments.
    assert not rest or "--help" in rest or [each for each in wanted if parsed[each] is None] == []


def test_every_query_is_one_for_prometheus(tmp_path: Path) -> None:
    queries = queries_of_the_runbook()
    assert len(queries) > 30
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "runbook", "rules": rules}]}))
    checked = promtool("check", "rules", "queries.yml", folder=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("event", sorted(set(re.findall(r'\.event == "([^"]+)"', RUNBOOK.read_text()))))
def test_a_log_line_that_it_looks_for_is_written(event: str) -> None:
    sources = (path for room in SERVICES for path in (ROOT / room).rglob("*.py"))
    assert any(f'"{event}"' in path.read_text() for path in sources)


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"`(--[a-z-]+)[` ]", RUNBOOK.read_text()))))
def test_a_flag_that_it_names_is_one(flag: str) -> None:
    settings = {*FrontendSettings.model_fields, *PredictorSettings.model_fields}
    options = {option for command in COMMANDS.values() for each in command.loaded().params for option in each.opts}
    assert flag in options | {f"--{name.replace('_', '-')}" for name in settings}


DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_command_for_the_cluster_names_its_namespace(document: Path) -> None:
    # The rest renders or applies files that name the namespace themselves.
    asking = r"kubectl (?:-[^ ]+ )*(?:get|describe|logs|rollout|delete|patch|exec|port-forward|wait|create|cp) [^`\n]*"
    text = document.read_text()
    assert [call for call in re.findall(asking, text) if "create namespace" not in call] == []
    if document == RUNBOOK:
        assert text.count("kubectl -n intent-serving ") > 15


def test_what_is_backed_up_is_restored_and_work_in_progress_is_left_out(tmp_path: Path) -> None:
    volume, restored = tmp_path / "models", tmp_path / "restored"
    shutil.copytree(ROOT / "models" / "clinc150-banking", volume / "helpdesk" / "1")
    (volume / "helpdesk" / "release.json").write_text("{}")
    (volume / "helpdesk" / ".release.lock").touch()
    (volume / ".staging").mkdir()
    restored.mkdir()
    create, extract = (call for call in commands("tar")[:2])
    for call, folder in ((create, volume), (extract, restored)):
        words = [str(folder) if word == "/models" else word for word in shlex.split(call)]
        subprocess.run(words, check=True, cwd=tmp_path)
    kept = {path.relative_to(restored).as_posix() for path in restored.rglob("*") if path.is_file()}
    assert kept == {
        "helpdesk/release.json",
        *(f"helpdesk/1/{name}" for name in ("manifest.json", "model.pth", "vocab.pth")),
    }
