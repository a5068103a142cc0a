"""What the runbook says to type exists: commands and their flags, queries, log lines; a backup can be restored."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import typer
import yaml

from intentctl.__main__ import app
from tests.conftest import ROOT
from tests.deploy.observability import RUNBOOK, promtool, queries_of_the_runbook

SERVICES = ("serving", "frontend", "predictor", "model_service")


def commands(program: str) -> list[str]:
    """Return how ``program`` is called in the runbook: in lines of their own, and in the text."""
    text = RUNBOOK.read_text()
    lines = re.findall(r"^    (.*)$", text, re.MULTILINE) + re.findall(r"`([^`]+)`", text)
    found = [call for line in lines for call in re.findall(rf"(?:^|\bdo |; |\| )({program} [^;|]*)", line)]
    assert found
    return [re.sub(r"\s(#|&&|>).*", "", call).strip() for call in found]


@pytest.mark.parametrize("call", sorted(set(commands("intentctl"))))
def test_a_command_of_intentctl_is_one(call: str) -> None:
    name, *rest = shlex.split(call)[1:]
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    command = group.commands[name]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word for word in rest if word.startswith("--")} <= known
    if "--help" not in rest:
        flags = {option for each in command.params if isinstance(each, click.Option) and each.is_flag
                 for option in each.opts}  # fmt: skip
        # Every other option takes the word that follows it.
        given = [word for at, word in enumerate(rest) if not word.startswith("--")
                 and (at == 0 or not rest[at - 1].startswith("--") or rest[at - 1] in flags)]  # fmt: skip
        arguments = [each for each in command.params if isinstance(each, click.Argument) and each.required]
        assert len(given) == len(arguments)


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


@pytest.mark.parametrize("setting", sorted(set(re.findall(r"`(--[a-z-]+)[` ]", RUNBOOK.read_text()))))
def test_a_flag_that_it_names_is_one(setting: str) -> None:
    from frontend.settings import FrontendSettings
    from predictor.settings import PredictorSettings

    fields = {*FrontendSettings.model_fields, *PredictorSettings.model_fields}
    of_commands = {option for call in commands("intentctl") for option in call.split() if option.startswith("--")}
    of_commands |= {"--tls-authority", "--credential-file", "--frontend", "--expect"}
    assert setting.removeprefix("--").replace("-", "_") in fields or setting in of_commands


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
