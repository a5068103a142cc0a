"""The README, followed by a newcomer to the letter: every block, in order, in a fresh clone."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.conftest import ROOT, SHARED
from tests.end_to_end.processes import grpcurl
from tests.end_to_end.readme.blocks import Program, Session, blocks_of
from tests.end_to_end.readme.terminal import Reader

README = (ROOT / "README.md").read_text()
PORTS = (51001, 51002, 51003)
"""Ports that the README names."""
BOOK_MODEL = SHARED / "seed-model" / "1"
CHECKED_OUT = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the tree as git would clone it, with uncommitted changes."""
    listed = subprocess.run(CHECKED_OUT, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folder = tmp_path / "intent-serving"
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def reader(clone: Path) -> Iterator[Reader]:
    # pytest's own environment must not reach into the clone.
    ours = ("INTENT_", "VIRTUAL_ENV", "VENV", "MODEL_DIR", "PYTHONPATH", "COLUMNS", "LINES", "NO_COLOR")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    tools = str(Path(grpcurl()).parent)
    own = str(Path(sys.executable).parent)
    path = [tools, *(folder for folder in os.environ["PATH"].split(":") if folder != own)]
    environment |= {"PATH": ":".join(path), "TERM": "xterm", "BOOK_MODEL": str(BOOK_MODEL), "LC_ALL": "C.UTF-8"}
    following = Reader(clone, environment)
    try:
        yield following
    finally:
        following.close()


@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.timeout(5400)
def test_every_block_does_in_a_fresh_clone_what_is_printed_there(reader: Reader, clone: Path) -> None:
    if not BOOK_MODEL.exists():
        pytest.skip("no model of the book: INTENT_SHARED has no seed-model/1")
    for port in PORTS:
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Fails if another process serves on a port that the README names.
            taken.bind(("127.0.0.1", port))
    subprocess.run(("git", "init", "--quiet"), cwd=clone, check=True)
    subprocess.run(("git", "add", "--all"), cwd=clone, check=True)
    for block in blocks_of(README):
        reader.begin_block()
        match block:
            case Session(commands):
                for command in commands:
                    reader.run(command)
            case Program(source, output):
                reader.run_program(source, output)
    assert _untracked(clone) == []


def test_what_the_documents_have_readers_make_is_ignored_and_no_sample_is(clone: Path) -> None:
    subprocess.run(("git", "init", "--quiet"), cwd=clone, check=True)
    samples = sorted(folder.name for folder in (clone / "models").iterdir() if folder.is_dir())
    for made in ("models/helpdesk/manifest.json", "models/bank/1/model.pth", "certificates/caller.key", "helpdesk.csv"):
        (clone / made).parent.mkdir(parents=True, exist_ok=True)
        (clone / made).touch()
    seen = {Path(name).parts for name in _untracked(clone)}
    assert sorted({parts[1] for parts in seen if parts[0] == "models" and len(parts) > 2}) == samples
    assert not {parts[0] for parts in seen} & {"certificates", "helpdesk.csv"}


def _untracked(clone: Path) -> list[str]:
    """Return the files that git neither tracks nor ignores."""
    listed = ("git", "ls-files", "-z", "--others", "--exclude-standard")
    told = subprocess.run(listed, cwd=clone, capture_output=True, text=True, check=True).stdout
    return [name for name in told.split("\0") if name]


def test_the_first_query_is_for_a_model_that_is_there() -> None:
    asked = re.findall(r'"runId": "([^"]+)"', README)
    assert (ROOT / "models" / asked[0] / "manifest.json").exists()
    assert "1" in asked, "the book's line belongs to the README"


def test_every_block_can_be_run() -> None:
    commands = [block.commands for block in blocks_of(README) if isinstance(block, Session)]
    assert sum(map(len, commands)) > 25


def test_a_picture_comes_before_everything_else_and_says_what_it_shows() -> None:
    _, picture = README.split("\n\n")[:2]
    (name,) = re.findall(r'src="([^"]+\.svg)"|\]\(([^)]+\.svg)\)', picture)
    drawing = ROOT / (name[0] or name[1])
    root = ET.fromstring(drawing.read_text())  # noqa: S314 - our own file
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    assert root.findtext(f"{space}title")
    assert len(root.findtext(f"{space}desc") or "") > 100
    # Hosts of repositories show it as an image, which may neither run scripts nor load anything.
    assert not {f"{space}script", f"{space}image", f"{space}foreignObject"} & {each.tag for each in root.iter()}
    assert "prefers-color-scheme: dark" in (root.findtext(f"{space}style") or "")
    assert drawing.stat().st_size < 10_000
