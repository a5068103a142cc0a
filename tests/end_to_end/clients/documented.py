"""Blocks of code and commands in docs/clients.md."""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import ROOT

MINUTES = 600.0

_TEXT = (ROOT / "docs" / "clients.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the blocks in ``language``, in their order; those without a language are what programs print."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", _TEXT, re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


def commands(heading: str) -> list[str]:
    """Return the commands of the indented block with which the section ``heading`` begins, each in one line."""
    (found,) = re.findall(rf"^### {heading}\n\n((?: {{4}}.*\n)+)", _TEXT, re.MULTILINE)
    return textwrap.dedent(found).replace("\\\n", "").splitlines()


def run(command: str, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Return what a command of a shell prints in ``folder``."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=MINUTES,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
