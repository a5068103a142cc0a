from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.builders import publish
from tests.conftest import ROOT
from tests.intentctl.terminal import printed_on_a_terminal

OWN_STYLES = re.compile(rb"\x1b\[[0-9;]*m")
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
LONG_ID = "a-tenant-with-a-long-name.and-a-domain-of-its-own.and-more-than-eighty-characters-in-all"
NO_UTF_8 = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "intentctl", *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        check=False,
    )


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    publish(tmp_path, "hostile", ModelVersion=f"1 {HOSTILE}", Algorithm=f"größe {HOSTILE}")
    return tmp_path


def test_what_a_manifest_says_does_not_control_a_terminal(volume: Path) -> None:
    printed = OWN_STYLES.sub(b"", printed_on_a_terminal("models", "--model-dir", str(volume), columns=200))
    assert b"hostile" in printed
    assert b"\x1b" not in printed
    assert b"\x07" not in printed
    assert "\x9b".encode() not in printed
    assert rb"\x1b]0;owned\x07\x1b[2J" in printed


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_what_a_manifest_says_does_not_control_the_terminal_behind_a_pipe(volume: Path, form: tuple[str, ...]) -> None:
    printed = run("models", "--model-dir", str(volume), *form).stdout.decode()
    assert "hostile" in printed
    assert all(character.isprintable() or character in "\t\n" for character in printed)


def test_json_means_the_same_whatever_the_terminal_prints(volume: Path) -> None:
    printed = [
        run("models", "--model-dir", str(volume), "--json", environment=environment).stdout
        for environment in ({}, NO_UTF_8, {"PYTHONIOENCODING": "latin-1"})
    ]
    assert printed[1].isascii()
    assert printed[2].isascii()
    for text in printed:
        (row,) = json.loads(text)
        assert row["algorithm"] == f"größe {HOSTILE}"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_text_is_printed_whatever_the_encoding_and_escaped_where_the_encoding_lacks_it(
    tmp_path: Path, encoding: str
) -> None:
    publish(tmp_path, "somebody", Algorithm="größe 余")
    done = run("models", "--model-dir", str(tmp_path), environment={"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, b"")
    assert "größe 余".encode(encoding, "backslashreplace") in done.stdout


def test_an_error_is_printed_whatever_the_encoding(tmp_path: Path) -> None:
    done = run("models", "--model-dir", str(tmp_path / "größe"), environment=NO_UTF_8)
    assert done.returncode == 2
    assert rb"gr\udcc3\udcb6\udcc3\udc9fe is not a folder" in done.stderr


def test_a_full_disk_is_reported_in_one_line(volume: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        command = [sys.executable, "-m", "intentctl", "models", "--model-dir", str(volume)]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(volume: Path, closed: str) -> None:
    command = f'exec "$0" -m intentctl models --model-dir "$1" {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, str(volume)], cwd=ROOT, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("columns", [40, 80])
def test_a_narrow_terminal_cuts_no_model_id(tmp_path: Path, columns: int) -> None:
    publish(tmp_path, LONG_ID, ModelVersion="2026-11-30.1")
    publish(tmp_path, "short", Algorithm="an algorithm whose name needs much room")
    printed = printed_on_a_terminal("models", "--model-dir", str(tmp_path), columns=columns).decode()
    assert LONG_ID in printed
    assert "2026-11-30.1" in printed
