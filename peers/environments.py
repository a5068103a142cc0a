"""A virtual environment for each peer, made from its pinned requirements and kept between runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HOME_SETTING: Final = "INTENT_PEERS_HOME"

REQUIREMENTS: Final = Path(__file__).parent / "requirements"
_INSTALL_SECONDS: Final = 1800
_STAMP: Final = ".installed"


class CannotInstall(Exception):
    """A peer cannot be installed on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Environment:
    """An installed virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        """Path of the interpreter."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Path of the site-packages folder."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"

    def program(self, name: str) -> Path:
        """Return the path of a program that one of the packages installed."""
        return self.folder / "bin" / name


def names() -> list[str]:
    """Return the names of all environments that :func:`environment` can make."""
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def home() -> Path:
    """Return the folder that holds the environments: ``INTENT_PEERS_HOME``, else one in the user's cache."""
    setting = os.environ.get(HOME_SETTING)
    return Path(setting) if setting else Path.home() / ".cache" / "intent-serving" / "peers"


def is_installed(name: str, requirements: Path = REQUIREMENTS) -> bool:
    """Return whether the environment is up to date, so that :func:`environment` has nothing to do."""
    return _has(name, [requirements / f"{name}.txt"])


def environment(name: str, requirements: Path = REQUIREMENTS) -> Environment:
    """Return the environment of ``NAME.txt`` in ``requirements``, which is made or updated if necessary.

    If another process is making the environment, the call waits for that process.

    Raises:
        CannotInstall: a package cannot be installed.
    """
    return environment_from(name, [requirements / f"{name}.txt"])


def environment_from(name: str, requirements: Sequence[Path]) -> Environment:
    """Return an environment of the packages that ``requirements`` pin, kept as ``name``, like :func:`environment`."""
    folder = home() / name
    with _alone_with(name):
        if not _has(name, requirements):
            venv.create(folder, with_pip=True, clear=True, symlinks=True)
            for file in requirements:
                _install(folder, file)
            (folder / _STAMP).write_text(_wanted(requirements))
    return Environment(folder)


def _has(name: str, requirements: Sequence[Path]) -> bool:
    stamp = home() / name / _STAMP
    return stamp.is_file() and stamp.read_text() == _wanted(requirements)


def _wanted(requirements: Sequence[Path]) -> str:
    pins = b"".join(file.read_bytes() for file in requirements)
    return hashlib.sha256(pins + sys.version.encode()).hexdigest()


@contextmanager
def _alone_with(name: str) -> Iterator[None]:
    """Let one process at a time make an environment. The system releases the lock however the process ends."""
    home().mkdir(parents=True, exist_ok=True)
    with (home() / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # maximum duration of an installation
        yield


def _install(folder: Path, requirements: Path) -> None:
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input"]
    torch_index = os.environ.get("TORCH_INDEX_URL")
    torch = [line for line in requirements.read_text().splitlines() if line.startswith("torch==")]
    if torch_index and torch:
        _run([*pip, "--index-url", torch_index, *torch], requirements.name)
    _run([*pip, "-r", str(requirements)], requirements.name)


def _run(command: list[str], name: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise CannotInstall(f"installing {name} took more than {_INSTALL_SECONDS} seconds") from error
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise CannotInstall(f"installing {name}: {reasons[-1].removeprefix('ERROR: ')}")
