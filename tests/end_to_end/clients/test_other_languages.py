"""The calls in other languages that docs/clients.md shows, as they are printed there, against a real stack."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.end_to_end.clients.documented import blocks
from tests.end_to_end.processes import Stack
from tests.end_to_end.transports.node_packages import installed_packages

pytestmark = pytest.mark.timeout(600)

NODE = Path(__file__).parent / "node"
MINUTES = 600.0


def documented_command(program: str) -> list[str]:
    """Return the arguments of the one command that begins with ``npx`` and a program, as the document shows it."""
    lines = (ROOT / "docs" / "clients.md").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.strip().startswith(f"npx {program}"))


def run(command: list[str | Path], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=MINUTES)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project in TypeScript with the pinned packages and the contracts."""
    packages = installed_packages(request.config, NODE)
    (tmp_path / "node_modules").symlink_to(packages)
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    return tmp_path


def test_the_example_in_typescript_is_typed_and_answered(project: Path, running: Stack) -> None:
    binaries = project / "node_modules" / ".bin"
    generator, *arguments = documented_command("proto-loader-gen-types")
    run([binaries / generator, *arguments], project)
    (example,) = blocks("typescript")
    (project / "call.ts").write_text(example.replace("127.0.0.1:51001", running.frontend.address))

    run(
        [binaries / "tsc", "--strict", "--target", "es2022", "--module", "commonjs", "--skipLibCheck", "call.ts"],
        project,
    )

    assert run(["node", "call.js"], project) == "timer [ 'timer', 'cook_time' ]\n"


def test_the_example_of_curl_is_answered_as_printed(running: Stack, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on the PATH")
    (example,) = blocks("sh")
    command = example.replace("127.0.0.1:51001", running.frontend.address)

    assert run(["bash", "-c", command], tmp_path).strip() == blocks("")[1].strip()
