from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from intentctl.__main__ import app
from intentctl.command import EXIT_CODES
from tests.conftest import ROOT

COMMANDS = sorted(name for name in get_command(app).commands if name != "access")  # type: ignore[attr-defined]
WIDE = {"COLUMNS": "200", "TERMINAL_WIDTH": "200"}


# Packages that take long to import.
HEAVY = ("torch", "numpy", "matplotlib", "pydantic", "grpc_http2", "cryptography", "opentelemetry", "prometheus_client")


@pytest.mark.parametrize(
    ("imported", "heavy"),
    [
        # The help of all commands imports none of them.
        ("intentctl.__main__", {*HEAVY, "grpc", "asyncio"}),
        ("intentctl.commands.predict", {*HEAVY}),
        # Manifests are models of pydantic.
        ("intentctl.commands.models", {*HEAVY} - {"pydantic"}),
    ],
)
def test_a_command_imports_only_what_it_needs(imported: str, heavy: set[str]) -> None:
    program = (
        f"import sys, intentctl.__main__, {imported}\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(intentctl.__main__.app, ['--help']).exit_code == 0\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert heavy & {*done.stdout.split()} == set()


@pytest.mark.parametrize("name", [*COMMANDS, "access"])
def test_the_help_of_all_commands_says_what_that_of_each_says(name: str) -> None:
    deferred: Any = get_command(app).commands[name]  # type: ignore[attr-defined]
    command = deferred.loaded()
    assert (command.name, command.help.split("\n\n")[0].replace("\n", " ")) == (name, deferred.help)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("intentctl pre", "predict"), ("intentctl predict --fr", "--frontend"), ("intentctl access k", "key")],
)
def test_a_shell_completes_commands_and_options(typed: str, offered: str) -> None:
    asking = {"_INTENTCTL_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = CliRunner().invoke(app, [], prog_name="intentctl", env=asking)
    assert offered in done.stdout.split()


def test_the_version_is_that_of_the_installed_package() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"intentctl {metadata.version('intent-serving')}\n"


@pytest.mark.parametrize("command", [*([name] for name in COMMANDS), [], ["access"], ["access", "key"]], ids=" ".join)
def test_help_shows_no_type_for_options_without_a_value(command: list[str]) -> None:
    printed = CliRunner().invoke(app, [*command, "--help"], env=WIDE).stdout
    assert "--help" in printed
    assert "bool" not in printed.lower()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_the_exit_codes(command: str) -> None:
    assert EXIT_CODES in CliRunner().invoke(app, [command, "--help"], env=WIDE).stdout


def test_the_former_name_of_an_option_still_works(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("text,label\n")
    refused = [
        CliRunner().invoke(app, ["train", str(data), "--model-id", "a", "--model-dir", str(tmp_path), option])
        for option in ("--replace", "--force")
    ]
    assert refused[0].output == refused[1].output
    assert "No such option" not in refused[0].output


def intentctl(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "intentctl", *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_a_misspelt_variable_is_named_on_standard_error(tmp_path: Path) -> None:
    done = intentctl("models", "--model-dir", tmp_path, "--json", INTENT_TLS_AUTHORTY="ca.pem", INTENT_CREDENTAIL="x")
    assert (done.returncode, done.stdout) == (0, "[]\n")
    assert done.stderr.splitlines() == [
        "warning: the variable INTENT_CREDENTAIL has no effect; INTENT_CREDENTIAL was probably meant",
        "warning: the variable INTENT_TLS_AUTHORTY has no effect; INTENT_TLS_AUTHORITY was probably meant",
    ]


def test_variables_of_others_are_not_named(tmp_path: Path) -> None:
    others = {
        "INTENT_CREDENTIAL": "x",
        "INTENT_FRONTEND_ROUTES": "a=b",
        "INTENT_PREDICTOR_SERVICE_HOST": "10.0.0.1",
        "INTENT_CUSTOM_PORT": "tcp://10.0.0.1:80",
        "INTENT_TEST_TRANSPORT": "http2",
    }
    assert intentctl("models", "--model-dir", tmp_path, "--json", **others).stderr == ""


def test_a_deletion_that_needs_confirmation_names_the_flag(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    refused = CliRunner().invoke(app, ["delete", "a", "--model-dir", str(tmp_path)], env=WIDE)
    assert (refused.exit_code, "confirm with --force" in refused.output) == (1, True)


def test_a_live_version_is_still_deleted_by_force_alone() -> None:
    printed = CliRunner().invoke(app, ["delete", "--help"], env=WIDE).stdout
    assert "--force" in printed
    assert "--replace" not in printed
