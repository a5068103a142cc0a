"""The programs in ``scripts/`` as a newcomer meets them, before anything is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.builders import PATIENCE
from tests.conftest import ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").iterdir() if os.access(path, os.X_OK))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder with the scripts and their requirements, where nothing can be installed or generated."""
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(clone: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [clone / "scripts" / name, *arguments],
        cwd=clone.parent, env={"PATH": os.environ["PATH"], "PYTHON": "/nonexistent"}, timeout=PATIENCE,
        check=False, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_short_and_installs_nothing(clone: Path, name: str, flag: str) -> None:
    helped = run(clone, name, flag)

    assert (helped.returncode, helped.stderr) == (0, "")
    assert f"scripts/{name} --help" in helped.stdout
    assert not any(line.startswith(("#", "set ", "source ")) for line in helped.stdout.splitlines())
    assert len(helped.stdout.splitlines()) < 25
    assert {path.name for path in clone.iterdir()} == {"scripts", "requirements", "pyproject.toml"}


def test_help_of_the_tests_names_the_sets_and_the_options(clone: Path) -> None:
    said = run(clone, "test", "tests/predictor", "--help").stdout

    for told in ("--with-triton", "-m slow", '-m "alone or containers" -n 0', "scripts/test -- --help"):
        assert told in said


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "stubs"])
def test_behind_a_double_dash_help_is_that_of_the_program_below(clone: Path, name: str) -> None:
    helped = run(clone, name, "--", "--help")

    assert (helped.returncode, helped.stdout) == (1, "")
    assert "Python 3.11 or newer is needed" in helped.stderr  # it went on to install


def test_stubs_refuse_what_they_do_not_know_before_anything_is_generated(clone: Path) -> None:
    refused = run(clone, "stubs", "--chekc")

    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--chekc" in refused.stderr
    assert "scripts/stubs --help" in refused.stderr
