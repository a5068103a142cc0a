"""Wheels of this repository, and empty environments into which they are installed."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

MINUTES = 600.0


def built_wheels(folder: Path) -> Path:
    """Build the wheels of the client, of the gRPC library and of the services; return their folder."""
    sources = (ROOT / "clients" / "python", ROOT / "grpc_http2", ROOT)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "--wheel-dir",
        folder,
    ]
    done = subprocess.run([*command, *sources], capture_output=True, text=True, check=False, timeout=MINUTES)
    assert done.returncode == 0, done.stderr
    return folder


@dataclass(frozen=True)
class EmptyEnvironment:
    """An environment of Python with nothing but what a test installs."""

    folder: Path
    wheels: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))

    def names(self) -> set[str]:
        """Return the names that can be imported from its site-packages, and those of further files there."""
        found = {path.name for path in self.site_packages.iterdir()}
        return {name for name in found if not name.endswith(".dist-info") and name != "__pycache__"}

    def install(self, *requirements: str) -> None:
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            self.python,
            "install",
            "--disable-pip-version-check",
            "--find-links",
            self.wheels,
        ]
        done = subprocess.run(
            [*command, *requirements], capture_output=True, text=True, check=False, timeout=MINUTES, cwd=self.folder
        )
        assert done.returncode == 0, done.stderr

    def run(self, program: str, *arguments: str) -> str:
        """Return what ``program`` prints, run where no file of this repository can be found."""
        done = subprocess.run(
            [self.python, "-W", "error", "-c", program, *arguments],
            capture_output=True, text=True, check=False, timeout=MINUTES, cwd=self.folder, env={},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


def empty_environment(folder: Path, wheels: Path) -> EmptyEnvironment:
    venv.create(folder, with_pip=False)
    return EmptyEnvironment(folder, wheels)
